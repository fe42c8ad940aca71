#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A job that computes: iterates a seeded matrix. The checksum after N steps depends on N only."""

import argparse
import hashlib
import os
import time

import numpy

parser = argparse.ArgumentParser()
parser.add_argument("--stop", help="end when this file exists")
parser.add_argument("--steps", type=int, default=1 << 30)
options = parser.parse_args()

random = numpy.random.default_rng(7)
matrix = random.standard_normal((200, 200))
step = 0
while step < options.steps and not (options.stop and os.path.exists(options.stop)):
    step += 1
    matrix = matrix @ matrix.T
    matrix = matrix / numpy.abs(matrix).max() + 1e-3 * random.standard_normal(matrix.shape)
    if options.stop:
        print("step", step, flush=True)
        time.sleep(0.02)
print("ok matrix", step, "steps, checksum", hashlib.sha256(matrix.tobytes()).hexdigest())
