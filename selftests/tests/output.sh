#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: a job's output takes room once, and waits for room where there is none
# KERNELS: first
# RUN: guest
set -eu
. "${0%/*}/lib.sh"

is_given_back() { [ "$(du -k /var/lib/ckpt/jobs/*/stdout | cut -f 1)" -le 2048 ]; }
output_is() { [ "$(stat -Lc %s out)" = "$1" ]; } # BYTES
output_is_least() { [ "$(stat -Lc %s out)" -ge "$1" ]; } # BYTES

# Prints lines of 64 bytes: as many as there are at first, and then more when it is asked for.
printer='
import os, sys, time
count = 0
def lines(number):
    global count
    for _ in range(number):
        count += 1
        print(f"{count:063d}")
    sys.stdout.flush()
lines(int(sys.argv[1]))
while not os.path.exists("stop"):
    if os.path.exists("more"):
        lines(int(open("more").read()))
        os.unlink("more")
    if os.path.exists("empty"):
        os.truncate(1, 0)
        os.unlink("empty")
    time.sleep(0.05)
'
printer_start() { run_start --job printer -- python3 -c "$printer" "$1"; } # LINES
more() { echo "$1" >more.new; mv more.new more; } # LINES

check_lines() { # NUMBER: all of them, once each and in order
	output_is $(($1 * 64))
	seq -f %063.0f "$1" | cmp - out
}

taken_once() {
	configure
	ckptd_start
	printer_start 500000
	await "its output" 90 output_is 32000000
	await "its room to be given back" 60 is_given_back
	await "an epoch" 60 field_is_least epochs 1
	ckptctl checkpoint 1000-printer
	more 100000
	await "more output" 90 output_is 38400000
	kill -9 "$(field pid)"
	run_ends 137
	rm -f more
	printer_start 500000
	await "the restore" 90 grep -q "goes on from checkpoint" err
	more 200000
	await "as much as before and more" 90 output_is_least 44800000
	is_given_back
	touch stop
	run_ends 0
	check_lines 700000
	check_no_trace
}

# Its output is on a file system of its own, that has room for MIB.
little_room() { # MIB
	mkdir -p "$job_dir/small"
	mount -t tmpfs -o "size=${1}m" tmpfs "$job_dir/small"
	chown -R scientist: "$job_dir"
	as_scientist ln -s small/out "$job_dir/out"
}

waits_for_room() {
	configure
	ckptd_start
	little_room 1
	printer_start 50000
	await "the end of the room" 60 grep -q "cannot write its standard output: No space left on device" err
	output_is 1048576
	await "an epoch" 60 field_is_least epochs 1
	mount -o remount,size=16m "$job_dir/small"
	await "what had waited" 60 output_is 3200000
	more 10
	await "more output" 60 output_is 3200640
	[ "$(grep -c "No space left" err)" = 1 ]
	touch stop
	run_ends 0
	check_lines 50010
	check_no_trace
}

ends_without_room() {
	configure
	ckptd_start
	little_room 1
	printer_start 50000
	await "the end of the room" 60 grep -q "No space left on device" err
	touch stop
	run_ends 125
	grep "the last 2151424 bytes of its standard output are lost" err
}

# What the job itself takes back is not lost.
emptied_without_room() {
	configure
	ckptd_start
	little_room 1
	printer_start 50000
	await "the end of the room" 60 grep -q "No space left on device" err
	as_scientist touch empty
	await "the job to empty it" 60 test ! -e empty
	touch stop
	run_ends 0
	fails grep "are lost" err
	check_no_trace
}

for case in ${*:-taken_once waits_for_room ends_without_room emptied_without_room}; do
	try "$case" "$case"
	! mountpoint -q "$job_dir/small" || umount "$job_dir/small"
done
finish
