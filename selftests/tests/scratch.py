#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A job that keeps its state in files and writes them in place: what it reads back must be what it wrote last.

One file is written with write(2), one in /dev/shm and one in /tmp through a shared mapping; others come and go. If the
files were of another moment than the memory, a step would find a page that it has not written."""

import argparse
import hashlib
import mmap
import os
import random
import time

PAGES = 256
PAGE = 4096

parser = argparse.ArgumentParser()
parser.add_argument("--stop", required=True, help="end when this file exists")
options = parser.parse_args()


def content(seed):
    return hashlib.sha256(b"%d" % seed).digest() * (PAGE // 32)


def mapped(path):
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.ftruncate(fd, PAGES * PAGE)
    return mmap.mmap(fd, PAGES * PAGE)


plain = os.open("state.bin", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
os.ftruncate(plain, PAGES * PAGE)
areas = {"shm": mapped("/dev/shm/state"), "tmp": mapped("/tmp/state")}
wrote = {name: [None] * PAGES for name in ("plain", *areas)}


def read(name, page):
    if name == "plain":
        return os.pread(plain, PAGE, page * PAGE)
    return areas[name][page * PAGE : (page + 1) * PAGE]


def write(name, page, data):
    if name == "plain":
        os.pwrite(plain, data, page * PAGE)
    else:
        areas[name][page * PAGE : (page + 1) * PAGE] = data


choice = random.Random(5)
step = 0
os.mkdir("made")
while not os.path.exists(options.stop):
    step += 1
    for name in wrote:
        for _ in range(8):
            page = choice.randrange(PAGES)
            last = wrote[name][page]
            if read(name, page) != (bytes(PAGE) if last is None else content(last)):
                raise SystemExit("step %d: page %d of %s is not what was written" % (step, page, name))
            wrote[name][page] = step
            write(name, page, content(step))
    # Each exists in one step only, and is made with O_EXCL: one of a later step would be in the way.
    with open("made/%d" % step, "x") as file:
        print(step, file=file)
    if step > 3:
        os.unlink("made/%d" % (step - 3))
    print("step", step, flush=True)
    time.sleep(0.05)
print("ok scratch", step)
