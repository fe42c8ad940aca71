#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""A job of which is known how much it writes: chain.py MIB PAGES (--stop FILE | --steps N)

Fills MIB of memory with what cannot be compressed, and then writes PAGES pages of it in each step. Prints "step N" for
each, and at last "ok" with a digest of all.
"""
import argparse
import hashlib
import os
import random
import time

PAGE = 4096
parser = argparse.ArgumentParser()
parser.add_argument("mib", type=int)
parser.add_argument("pages", type=int)
parser.add_argument("--stop")
parser.add_argument("--steps", type=int)
options = parser.parse_args()

draw = random.Random(1)
memory = bytearray(draw.randbytes(options.mib << 20))
step = 0
while step != options.steps and not (options.stop and os.path.exists(options.stop)):
    step += 1
    for _ in range(options.pages):
        at = draw.randrange(len(memory) // PAGE) * PAGE
        memory[at:at + PAGE] = draw.randbytes(PAGE)
    print("step", step, flush=True)
    if options.stop:
        time.sleep(0.1)
print("ok", hashlib.sha256(memory).hexdigest(), flush=True)
