#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Usage: dropped.py			a job: fills 2 MiB, drops a half of it when there is a file drop, and looks at all of
					it when there is a file stop
	dropped.py --collapse PID ADDRESS	fills what is dropped there with zeros, as khugepaged does: makes it one huge page
"""
import ctypes
import errno
import mmap
import os
import sys
import time

HUGE = 2 << 20
SYS_PROCESS_MADVISE = 440
MADV_COLLAPSE = 25


def await_file(name):
    while not os.path.exists(name):
        time.sleep(0.1)


def job():
    memory = mmap.mmap(-1, 2 * HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    offset = -start % HUGE
    half = offset + HUGE // 2
    memory[offset:offset + HUGE] = b"x" * HUGE
    print("filled", start + offset)
    await_file("drop")
    memory.madvise(mmap.MADV_DONTNEED, half, HUGE // 2)
    print("dropped")
    await_file("stop")
    kept = memory[offset:half] == b"x" * (HUGE // 2)
    gone = memory[half:offset + HUGE] == bytes(HUGE // 2)
    print("all is right" if kept and gone else f"wrong: kept {kept}, dropped {gone}")


def collapse(pid, address):
    libc = ctypes.CDLL(None, use_errno=True)
    vector = (ctypes.c_size_t * 2)(address, HUGE)
    done = libc.syscall(SYS_PROCESS_MADVISE, os.pidfd_open(pid), vector, ctypes.c_size_t(1), MADV_COLLAPSE, 0)
    if done != HUGE:
        print(f"no huge page at {address:#x}: {os.strerror(ctypes.get_errno())}")
        sys.exit(77 if ctypes.get_errno() == errno.EINVAL else 1)


if sys.argv[1:2] == ["--collapse"]:
    collapse(int(sys.argv[2]), int(sys.argv[3]))
else:
    job()
