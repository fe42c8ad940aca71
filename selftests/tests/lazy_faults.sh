#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: whoever dies and whatever is lost while memory is missing: no process of the job goes on with zeros
# KERNELS: first
# RUN: guest --mem 1536
# Usage: lazy_faults.sh [CASE…]
set -eu
. "${0%/*}/lib.sh"

job="$tests/lazy_job --stop stop --busy busy --mib 8"

start() {
	: >"$job_dir/err"
	# shellcheck disable=SC2086 # a command
	run_start --job j -- $job
}

saved() { # [CLASS LINE]
	mkdir -p "$job_dir"
	configure "restore = lazy" "$@"
	ckptd_start CKPT_FAULT=lazy.no_ahead
	start
	await "two epochs" 60 field_is_least epochs 2
	ckptctl checkpoint 1000-j
	progress 3
	ckptctl drain
	run_ends 75
}

# Restored, and nothing of its memory has come but what it needs to count.
missing() { # [CLASS LINE]
	saved "$@"
	ckptd_restart CKPT_FAULT=lazy.no_ahead
	start
	await "the restore" 90 grep -q "come while it runs" err
	progress 2
}

# The same line again; the job is its own judge.
ends_well() {
	ckptd_restart
	start
	await "the restore" 90 grep -q "goes on from checkpoint" err
	"$@"
	touch busy
	progress 10
	touch stop
	run_ends 0
	check_output out
	check_no_trace
}

restored_eagerly() { grep 'is restored eagerly: the restore before this one' err; }

pids_of() { pgrep -x "$1"; } # NAME

# --- it must not run ---

case_refused() {
	saved
	ckptd_restart CKPT_FAULT=lazy.check
	start
	run_ends 75
	grep 'could not be restored: .*not all that is missing is watched' err
	await "the end of all that gives memory" 20 fails pgrep -x 'ckpt-pages|ckpt-holder'
	ends_well restored_eagerly
}

# --- processes that are killed ---

# At a time when the job touches everything: a page of zeros would be seen at once.
killed() { # REASON NAME…
	missing
	reason=$1
	shift
	touch busy
	# shellcheck disable=SC2046 # pids
	kill -9 $(for name in "$@"; do pids_of "$name"; done)
	run_ends 75
	grep "could not be restored: $reason.*goes on from its last checkpoint" err
	fails grep wrong out
	rm busy
	await "the end of all that gives memory" 20 fails pgrep -x 'ckpt-pages|ckpt-holder'
	ends_well restored_eagerly
}

case_pages() { killed "the process that gave the job its memory was killed" ckpt-pages; }
case_holder() { killed "the process that holds on to the job's memory was killed" ckpt-holder; }
# At once: what is left to see it is ckpt-init, if the holder did not before it died.
case_both() { killed ".*memory was killed" ckpt-pages ckpt-holder; }

case_init() {
	missing
	touch busy
	kill -9 "$(pids_of ckpt-init)"
	run_ends 125
	grep 'the job was killed from outside' err
	fails grep wrong out
	rm busy
	await "the end of all that gives memory" 20 fails pgrep -x 'ckpt-pages|ckpt-holder'
	ends_well restored_eagerly
}

# It is not needed: the job goes on, its memory comes, and the next ckptd takes it up.
case_ckptd() {
	missing
	ckptd_stop KILL
	touch busy
	ckptd_start
	progress 10
	await "the job to be taken up" 60 job_runs
	fails field_is_least epochs 1
	touch stop
	run_ends 0
	check_output out
	check_no_trace
}

# Everything that is ours at once, as at the end of a cgroup.
case_all() {
	missing
	touch busy
	# shellcheck disable=SC2046 # pids
	kill -9 $(pids_of ckptd; pids_of ckpt-pages; pids_of ckpt-holder; pids_of ckpt-init)
	await "the job's end" 20 fails pgrep -x lazy_job
	fails grep wrong out
	rm busy
	ckptd_start
	run_ends 125
	ends_well restored_eagerly
}

# The program ends, and that is all.
case_job_ends() {
	missing
	touch stop
	run_ends 0
	check_output out
	await "the end of all that gives memory" 20 fails pgrep -x 'ckpt-pages|ckpt-holder'
	check_no_trace
}

case_job_killed() {
	missing
	kill -9 "$(field pid)"
	run_ends 137
	await "the end of all that gives memory" 20 fails pgrep -x 'ckpt-pages|ckpt-holder'
	# Somebody else's SIGKILL, so that the checkpoints stay.
	ends_well restored_eagerly
}

# Its `run` is ended: so is the job, and the checkpoint stays.
case_run_killed() {
	missing
	kill -9 "$run"
	await "the job's end" 60 fails pgrep -x lazy_job
	ends_well restored_eagerly
}

# --- the store ---

# What is asked for waits until it is back.
case_store_away() {
	missing
	mkdir /tmp/away
	mv "$store"/1000-j/* /tmp/away
	touch busy
	await "the job to wait" 60 grep -q 'what needs it waits until the store is back' err
	fails grep wrong out
	mv /tmp/away/* "$store/1000-j"
	rmdir /tmp/away
	progress 10
	touch stop
	run_ends 0
	check_output out
	check_no_trace
}

# The newest checkpoint's pages are damaged: the job is ended, and goes back to the one before.
case_damage() {
	missing "keep = 5"
	for segment in "$store"/1000-j/seg-*; do
		python3 - "$segment" <<-'DAMAGE'
			import os, sys
			with open(sys.argv[1], "r+b") as f:
			    for at in range(4096, os.path.getsize(sys.argv[1]), 65536):
			        f.seek(at)
			        f.write(b"damage")
		DAMAGE
	done
	touch busy
	run_ends 75
	grep 'could not be restored: .*is damaged or was tampered with.*its last checkpoint' err
	fails grep wrong out
	rm busy
	ckptd_restart
	start
	# All of them have the segments of the first epoch.
	run_ends 125
	grep 'is restored eagerly' err
	grep 'No checkpoint before it is left' err
}

for case in ${*:-refused pages holder both init ckptd all job_ends job_killed run_killed store_away damage}; do
	try "$case" "case_$case"
done
finish
