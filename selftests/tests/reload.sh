#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: the module is loaded anew under ckptd: refused while it tracks a job, and a job goes on with a full epoch
# KERNELS: first
# RUN: guest
set -eu
. "${0%/*}/lib.sh"

mechanism() { ckptctl status --json | sed -n 's/^ *"mechanism": "\(.*\)".*/\1/p' | head -n 1; }
mechanism_is() { [ "$(mechanism)" = "$1" ]; }
unload() { rmmod ckpt; }

# The trackers are gone with their daemon. The next one cannot know what was written meanwhile.
between_daemons() {
	configure "mechanism = soft-dirty"
	ckptd_start
	memory_job_start
	fails rmmod ckpt
	ckptd_stop KILL
	progress 2
	await "the module to be free" 10 unload
	progress 2
	modprobe ckpt
	ckptd_start
	await "two epochs of the next ckptd" 60 field_is_least epochs 2
	mechanism_is soft-dirty
	fails rmmod ckpt
	memory_job_finish
}

# Without jobs a daemon does not hold the module. A job that begins without it is tracked by other means, and the next one
# by the module again.
between_jobs() {
	configure "mechanism = soft-dirty, procfs, hash"
	ckptd_start
	memory_job_start
	mechanism_is soft-dirty
	touch stop
	run_ends 0
	await "ckptd to forget the job" 30 no_jobs
	await "the module to be free" 10 unload
	rm -rf "$job_dir"
	memory_job_start
	mechanism_is "$(next_best)"
	touch stop
	run_ends 0
	check_output out
	await "ckptd to forget the job" 30 no_jobs
	modprobe ckpt
	rm -rf "$job_dir"
	memory_job_start
	mechanism_is soft-dirty
	fails rmmod ckpt
	memory_job_finish
}

# A daemon that finds no module for a job that it takes up tracks it by other means.
missing_at_restart() {
	configure "mechanism = soft-dirty, procfs, hash"
	ckptd_start
	memory_job_start
	ckptd_stop
	await "the module to be free" 10 unload
	ckptd_start
	await "two epochs of the next ckptd" 60 field_is_least epochs 2
	mechanism_is "$(next_best)"
	memory_job_finish
	modprobe ckpt
}

modprobe ckpt
try between-daemons between_daemons
try between-jobs between_jobs
try missing-at-restart missing_at_restart
finish
