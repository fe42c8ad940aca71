#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: every kind of job is saved by a drain and goes on from there as if nothing had been
# KERNELS: criu
# FURTHER: memory threads tree shared files tree,uffd-wp threads,procfs memory,uffd-wp,no_soft_dirty high refused zero guard guard,uffd-wp fork emptied
# RUN: guest --cpu max,erms=off
# Usage: roundtrip.sh [KIND[,MECHANISM]…]	(all; MECHANISM: of the class, where it works)
set -eu
. "${0%/*}/lib.sh"

# One job: run, drain, run again, end. check is called with the output file.
round_trip() { # CHECK COMMAND…
	check=$1
	shift
	configure ${mechanism:+"mechanism = $mechanism"}
	ckptd_start $faults
	run_start -- "$@"
	await "two epochs" 60 field_is_least epochs 2
	progress 3
	ckptctl drain
	run_ends 75
	grep -q 'the job is saved' err
	saved=$(steps out)
	ckptd_restart $faults
	run_start -- "$@"
	await "the restore" 60 grep -q "goes on from checkpoint" err
	progress 5
	await "an epoch after the restore" 60 field_is_least epochs 2
	touch stop
	run_ends 0
	test "$(steps out)" -gt "$saved"
	"$check" out
	check_no_trace
}

check_workload() { # FILE
	check_output "$1"
	check_digest "$1" "$mode" --arena-mib 8
}

workload_trip() {
	round_trip check_workload "$workload" "$mode" --stop stop --arena-mib 8
}

check_matrix() { # FILE
	check_output "$1"
	python3 $tests/matrix.py --steps "$(steps "$1")" >/tmp/reference.out
	tail -n 1 "$1" | diff /tmp/reference.out -
}

matrix_trip() {
	round_trip check_matrix python3 $tests/matrix.py --stop stop
}

# Processes come and go all the time, and a pipe is always there.
pipeline_trip() {
	# shellcheck disable=SC2016 # for the job's shell
	round_trip check_output sh -c '
		i=0
		while [ ! -e stop ]; do i=$((i + 1)); echo $i; sleep 0.05; done |
			while read -r line; do echo "step $line"; done
		echo ok pipeline'
}

# A program that empties its output again and again: it waits until each line has been given on.
emptied_trip() {
	# shellcheck disable=SC2016 # for the job's shell
	round_trip check_output sh -c '
		step=0
		while [ ! -e stop ]; do
			for to in /dev/stdout /dev/fd/1 append; do
				step=$((step + 1))
				if [ $to = append ]; then echo step $step; else echo step $step >$to; fi
				until grep -qx "step $step" out; do sleep 0.1; done
			done
		done
		echo ok emptied'
}

# What is restored ends at once, before ckptd can take it in hand.
brief_trip() {
	configure
	ckptd_start
	set -- python3 -uc '
import os, time
step = 0
while not os.path.exists("stop"):
    if step < 50:
        step += 1
        print("step", step)
    time.sleep(0.0001)
print("ok brief")'
	run_start -- "$@"
	await "its steps" 60 steps_are_least 50 out
	ckptctl drain
	run_ends 75
	ckptd_restart
	touch stop
	run_start -- "$@"
	run_ends 0
	check_output out
	check_no_trace
}

# Memory where only page tables of five levels reach: CRIU leaves it out and says nothing. It is refused, also when it
# comes into being between the look at the job and its freeze, and does no harm when it is gone.
high_trip() {
	configure
	ckptd_start CKPT_FAULT=checkpoint.prepared:2=stop
	run_start --job high -- python3 -uc '
import ctypes, os, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
high = 1 << 50
step = 0
while not os.path.exists("stop"):
    step += 1
    print("step", step)
    if os.path.exists("map"):
        assert libc.mmap(high, 65536, 3, 0x22, -1, 0) == high
        ctypes.memset(high, 65, 65536)
        os.rename("map", "mapped")
    if os.path.exists("unmap"):
        libc.munmap(ctypes.c_void_p(high), 65536)
        os.rename("unmap", "unmapped")
    time.sleep(0.1)
print("ok high")'
	await "an epoch" 60 field_is_least epochs 1
	touch map
	await "the mapping" 60 test -e mapped
	await "the word about it" 60 grep -q "cannot be saved as it is: process .* has memory above 128 TiB" err
	fails ckptctl checkpoint 1000-high
	touch unmap
	await "its end" 60 test -e unmapped
	ckptctl checkpoint 1000-high
	ckptctl checkpoint 1000-high >/tmp/said 2>&1 &
	saving=$!
	await "criu to stand ready" 60 stopped "$(cat /tmp/ckptd.pid)"
	rm mapped
	touch map
	await "the mapping" 60 test -e mapped
	kill -CONT "$(cat /tmp/ckptd.pid)"
	if await_status 60 $saving; then return 1; fi
	cat /tmp/said
	grep "has memory above 128 TiB (at 4000000000000-4000000010000), which CRIU does not save" /tmp/said
	touch stop
	run_ends 0
}

# What CRIU cannot save is refused, with what to do, and the job runs on.
refused_trip() {
	configure
	ckptd_start
	# With the kernel's default only those from 6.5 on have it.
	if python3 -c 'import ctypes, sys; sys.exit(ctypes.CDLL(None).syscall(447, 0) < 0)'; then
		refused secret 'memory of memfd_secret().*let the program do without it'
	fi
	refused container 'the program made itself a container.*run it without'
}

refused() { # WHAT PATTERN
	rm -f "$job_dir"/*
	run_start --job "$1" -- python3 -uc '
import ctypes, os, sys, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
if sys.argv[1] == "secret":
    secret = libc.syscall(447, 0)
    os.ftruncate(secret, 4096)
    ctypes.memset(libc.mmap(None, 4096, 3, 1, secret, 0), 65, 4096)
    os.close(secret)
else:
    assert libc.unshare(0x10000000) == 0
step = 0
while not os.path.exists("stop"):
    step += 1
    print("step", step)
    time.sleep(0.1)
print("ok", sys.argv[1])' "$1"
	await "an epoch" 60 field_is_least epochs 1
	progress 1
	if ckptctl checkpoint "1000-$1" 2>/tmp/said; then return 1; fi
	cat /tmp/said
	grep "$2" /tmp/said
	progress 2
	touch stop
	run_ends 0
	check_output out
	check_no_trace
}

# Memory that was written and saved is taken back, by mapping it anew or by MADV_DONTNEED, and only read: the kernel gives
# its zero page, huge where it may, or the file's. The trackers do not report those, and from 7.x on the huge one looks like
# memory of the job's own. What was saved of it must not come back.
zero_trip() {
	configure ${mechanism:+"mechanism = $mechanism"}
	ckptd_start
	set -- python3 -uc '
import ctypes, os, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
huge = 2 << 20
with open("backing", "wb") as file:
    file.write(b"f" * huge)
backing = os.open("backing", os.O_RDONLY)

class Area:
    def __init__(self, name, kind, again):
        self.name, self.kind, self.again = name, kind, again
        self.at = libc.mmap(None, 3 * huge, 3, 0x22, -1, 0) + huge - 1 & -huge
        self.map()
        ctypes.memset(self.at, 65, huge)
    def map(self):
        file = self.kind == "file"
        assert libc.mmap(self.at, huge, 3, 0x12 if file else 0x32, backing if file else -1, 0) == self.at
        libc.madvise(self.at, huge, 14 if self.kind == "huge" else 15)
    def take_back(self):
        if self.again:
            assert libc.munmap(self.at, huge) == 0
            self.map()
        else:
            assert libc.madvise(self.at, huge, 4) == 0
    def check(self, taken_back):
        holds = (b"f" if self.kind == "file" else b"\0") if taken_back else b"A"
        assert ctypes.string_at(self.at, huge).count(holds) == huge, self.name + " is not what it was"

areas = [Area(kind + (" mapped anew" if again else " given up"), kind, again)
         for kind in ("huge", "small", "file") for again in (False, True)]
step = 0
taken_back = False
while not os.path.exists("stop"):
    step += 1
    if os.path.exists("map") and not taken_back:
        for area in areas:
            area.take_back()
        taken_back = True
    for area in areas:
        area.check(taken_back)
    print("step", step, "zero" if taken_back else "written")
    time.sleep(0.1)
print("ok zero")'
	run_start --job zero -- "$@"
	await "two epochs" 60 field_is_least epochs 2
	progress 1
	ckptctl checkpoint 1000-zero
	touch map
	await "the new mapping" 60 grep -q zero out
	before=$(field epochs)
	await "two epochs" 60 field_is_least epochs $((before + 2))
	ckptctl drain
	run_ends 75
	ckptd_restart
	run_start --job zero -- "$@"
	await "the restore" 60 grep -q "goes on from checkpoint" err
	progress 3
	touch stop
	run_ends 0
	grep -qx "ok zero" out
	check_no_trace
}

# Guard pages, which CRIU before 4.2 takes for what was there before, are refused until they are gone.
guard_trip() {
	configure ${mechanism:+"mechanism = $mechanism"}
	ckptd_start
	run_start --job guard -- python3 -uc '
import ctypes, os, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
at = libc.mmap(None, 65536, 3, 0x22, -1, 0)
ctypes.memset(at, 65, 65536)
step = 0
while not os.path.exists("stop"):
    step += 1
    print("step", step)
    for name, advice in ("guard", 102), ("free", 103):
        if os.path.exists(name):
            assert libc.madvise(at + 8192, 8192, advice) == 0
            os.rename(name, name + "ed")
    time.sleep(0.1)
print("ok guard")'
	await "two epochs" 60 field_is_least epochs 2
	touch guard
	await "the guard pages" 60 test -e guarded
	if ckptctl checkpoint 1000-guard >/tmp/said 2>&1; then return 1; fi
	cat /tmp/said
	grep "has a guard page (MADV_GUARD_INSTALL, at .*: install CRIU 4.2" /tmp/said
	progress 2
	touch free
	await "their end" 60 test -e freeed
	ckptctl checkpoint 1000-guard
	touch stop
	run_ends 0
	check_output out
}

has_guard_pages() {
	python3 -c '
import ctypes, mmap
libc = ctypes.CDLL(None, use_errno=True)
memory = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
raise SystemExit(libc.madvise(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory))), 4096, 102) != 0)'
}

# A child finds memory empty that it is to, and does not get its parent's random numbers. The program is to end with its
# parent, which after a restore is not criu.
fork_trip() {
	round_trip check_output python3 -uc '
import ctypes, os, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
assert libc.prctl(1, 15) == 0
at = libc.mmap(None, 65536, 3, 0x22, -1, 0)
assert libc.madvise(at, 65536, 18) == 0
ctypes.memset(at, 65, 65536)

def child_says(what):
    here, there = os.pipe()
    if os.fork() == 0:
        os.write(there, what())
        os._exit(0)
    os.wait()
    said = os.read(here, 100)
    os.close(here)
    os.close(there)
    return said

step = 0
while not os.path.exists("stop"):
    step += 1
    assert ctypes.string_at(at, 65536) == bytes([65]) * 65536, "the memory is not what it was"
    assert child_says(lambda: ctypes.string_at(at, 16)) == bytes(16), "a child got what it should not"
    assert child_says(lambda: os.urandom(16)) != os.urandom(16), "a child got the random numbers of its parent"
    print("step", step)
    time.sleep(0.1)
print("ok fork")'
}

# Each mechanism once, and CRIU on a kernel that has no soft-dirty bits, and one that cannot be started beforehand.
for kind in ${*:-memory vfork threads tree shared files matrix pipeline brief tree,uffd-wp threads,procfs memory,hash memory,uffd-wp,no_soft_dirty files,procfs,no_hold high refused zero guard guard,uffd-wp fork emptied}; do
	mechanism=$(echo "$kind," | cut -d, -f2)
	faults=$(echo "$kind,," | cut -d, -f3)
	faults=${faults:+CKPT_FAULT=criu.$faults}
	mode=${kind%%,*}
	if [ -n "$mechanism" ] && ! mechanism_works "$mechanism"; then
		echo "skip $kind: the mechanism does not work on this kernel"
		continue
	fi
	if [ $mode = high ] && ! grep -q la57 /proc/cpuinfo; then
		echo "skip $kind: page tables have four levels here"
		continue
	fi
	if [ $mode = guard ] && ! has_guard_pages; then
		echo "skip $kind: the kernel has no guard pages"
		continue
	fi
	case $mode in
	matrix | pipeline | brief | high | refused | zero | guard | fork | emptied) try "$kind" "${mode}_trip" ;;
	*) try "$kind" workload_trip ;;
	esac
done
finish
