#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: what asynchronous I/O reads while a job is saved is in its memory when it is restored
# KERNELS: first
# RUN: guest --disk 64
#
# The disk takes its time to answer, so a request is always under way.
set -eu
. "${0%/*}/lib.sh"

slow_disk() {
	size=$(blockdev --getsz /dev/vda)
	echo "0 $size linear /dev/vda 0" | dmsetup create slow
	[ -e /dev/mapper/slow ] || dmsetup mknodes slow
	mke2fs -q -F -t ext4 /dev/mapper/slow
	mkdir -p /tmp/slow
	mount -t ext4 /dev/mapper/slow /tmp/slow
	head -c 262144 /dev/zero | tr '\0' A >/tmp/slow/data
	sync /tmp/slow/data
}

disk_answers_after() { # MILLISECONDS
	dmsetup suspend slow
	echo "0 $size delay /dev/vda 0 $1" | dmsetup load slow
	dmsetup resume slow
}

reader_start() {
	run_start --job reader -- python3 -uc '
import ctypes, mmap, os, struct
libc = ctypes.CDLL(None)
IO_SETUP, IO_GETEVENTS, IO_SUBMIT = 206, 208, 209
context = ctypes.c_ulong(0)
assert libc.syscall(IO_SETUP, 8, ctypes.byref(context)) == 0
file = os.open("/tmp/slow/data", os.O_RDONLY | os.O_DIRECT)
memory = mmap.mmap(-1, 262144, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
event = ctypes.create_string_buffer(32)
step = 0
while not os.path.exists("stop"):
    step += 1
    at = step % 64 * 4096
    memory[at:at + 4096] = bytes(4096)
    request = ctypes.create_string_buffer(struct.pack("<QIIHhIQQqQII", step, 0, 0, 0, 0, file, address + at, 4096, at, 0, 0, 0))
    requests = (ctypes.c_void_p * 1)(ctypes.addressof(request))
    assert libc.syscall(IO_SUBMIT, context, ctypes.c_long(1), requests) == 1
    while libc.syscall(IO_GETEVENTS, context, ctypes.c_long(1), ctypes.c_long(1), event, None) != 1:
        pass
    assert struct.unpack("<QQqq", event.raw)[::2] == (step, 4096), "another request has ended"
    assert memory[at:at + 4096] == b"A" * 4096, "what was read is not there"
    print("step", step)
print("ok aio")'
}

reads_under_way() {
	configure "mechanism = $mechanism"
	ckptd_start
	reader_start
	await "two epochs" 60 field_is_least epochs 2
	progress 1
	for _ in 1 2 3; do
		ckptctl checkpoint 1000-reader
		ckptctl drain
		run_ends 75
		ckptd_restart
		: >err
		reader_start
		await "the restore" 60 grep "goes on from checkpoint" err
		progress 3
	done
	touch stop
	run_ends 0
	check_output out
	check_no_trace
}

# How many of its requests have ended.
ring_tail() { # PID
	python3 - "$1" <<-'EOF'
		import sys
		process = "/proc/" + sys.argv[1]
		start = next(line.split("-")[0] for line in open(process + "/maps") if "/[aio]" in line)
		with open(process + "/mem", "rb") as memory:
		    memory.seek(int(start, 16) + 12)
		    print(int.from_bytes(memory.read(4), "little"))
	EOF
}

answered() { [ "$(ring_tail "$pid")" != "$before" ]; }

# After the job's memory was looked at, and before its ring is: it would be restored as done, without what it read.
read_ends_meanwhile() {
	disk_answers_after 10000
	configure "epoch_interval = 1h"
	ckptd_start CKPT_FAULT=reader.collected=stop
	reader_start
	await "an epoch" 60 field_is_least epochs 1
	pid=$(field pid)
	progress 1
	ckptctl checkpoint 1000-reader >/tmp/said 2>&1 &
	asked=$!
	await "the look at its memory" 60 stopped "$(cat /tmp/ckptd.pid)"
	before=$(ring_tail "$pid")
	await "the end of its request" 30 answered
	kill -CONT "$(cat /tmp/ckptd.pid)"
	fails wait $asked
	grep 'asynchronous I/O (io_submit) of process [0-9]* came to its end while the job was saved, so nothing was committed' /tmp/said
	disk_answers_after 300
	progress 3
	ckptctl checkpoint 1000-reader
	touch stop
	run_ends 0
	check_output out
	check_no_trace
}

configure
slow_disk
disk_answers_after 300
for mechanism in soft-dirty uffd-wp procfs hash; do
	! mechanism_works "$mechanism" || try "reads under way, $mechanism" reads_under_way
done
try "a read ends while the job is saved" read_ends_meanwhile
finish
