#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: a job's files are of the same moment as its memory, also when it is lost without a notice
# KERNELS: first
# RUN: guest
set -eu
. "${0%/*}/lib.sh"

job_start() {
	run_start -- python3 "$tests/scratch.py" --stop "$job_dir/stop"
}

kill_job() { # as a node that dies would: what came after the last checkpoint is lost
	pid=$(field pid)
	kill -9 "$(awk '/^PPid/ { print $2 }' "/proc/$pid/status")"
	run_ends 125
}

lost_once() {
	progress 5
	ckptctl checkpoint "$(ckptctl status --json | sed -n 's/^ *"job": "\(.*\)".*/\1/p')"
	progress 5
	echo kept >"$job_dir/mine"
	kill_job
	job_start
	await "the restore" 90 grep -q "goes on from checkpoint" err
	grep -q "files put back as at the checkpoint" err
	# Nobody's file is deleted.
	grep -q kept "$job_dir/.ckpt-aside/mine.1"
	rm -r "$job_dir/.ckpt-aside"
	: >err
}

captured() {
	configure "capture = cwd" "private = /tmp, /dev/shm"
	ckptd_start
	job_start
	await "two epochs" 90 field_is_least epochs 2
	lost_once
	lost_once
	progress 3
	touch stop
	run_ends 0
	check_output out
	test ! -e /tmp/state
	test ! -e /dev/shm/state
	check_no_trace
}

# Without the key the same loss is met by the job itself: the test above tests something.
not_captured() {
	configure "private = /tmp, /dev/shm"
	ckptd_start
	job_start
	await "two epochs" 90 field_is_least epochs 2
	progress 5
	ckptctl checkpoint "$(ckptctl status --json | sed -n 's/^ *"job": "\(.*\)".*/\1/p')"
	progress 5
	kill_job
	job_start
	run_ends 1
	grep -q "is not what was written\|FileExistsError\|FileNotFoundError" err
}

moved() {
	configure "capture = cwd" "private = /tmp, /dev/shm"
	ckptd_start
	job_start
	progress 5
	ckptctl drain
	run_ends 75
	# Another node has nothing of /tmp and /dev/shm.
	ckptd_restart
	job_start
	await "the restore" 90 grep -q "goes on from checkpoint" err
	progress 5
	touch stop
	run_ends 0
	check_output out
	check_no_trace
}

try "lost, with its files captured" captured
try "lost, with its files not captured" not_captured
try "moved" moved
finish
