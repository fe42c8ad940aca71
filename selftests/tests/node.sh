#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Usage: node.sh NAME PHASE	One boot of a node, for nodes.sh and power_loss.sh. /share is the storage that nodes share;
#				each line of /share/jobs is a mode of workload with its options: a job.
#	interrupt	the jobs begin or go on, an interruption is announced, they are saved
#	commit		they begin or go on, until each has a checkpoint and has gone on from it
#	refused		this is no node for them: they are not restored, and can be elsewhere
#	end		they go on and end; everything is checked
# Prints "node: done" at the end of the phase and then stands still until the power goes.
set -eu
name=$1
phase=$2
store=/share/store
. "${0%/*}/lib.sh"

# Jobs whose output and errors go to one file, as with Slurm, say so in /share/merged.
errors=err
[ ! -e /share/merged ] || errors=out

each_job() { # FUNCTION: called in the job's directory with $mode, $options and $job_dir set
	while read -r mode options; do
		job_dir=/share/$mode
		mkdir -p "$job_dir"
		cd "$job_dir"
		"$1"
	done </share/jobs
}

job_start() {
	# shellcheck disable=SC2086 # a list of options
	run_start --job "$mode" -- "$workload" "$mode" --stop /share/stop $options
	runs="${runs:-} $run"
}

jobs_run() { [ "$(ckptctl status --json | grep -c '"state": "running"')" = "$jobs" ]; }

jobs_begin() {
	ckptd_start
	each_job job_start
	await "all jobs to run" 150 jobs_run
}

runs_end() { # STATUS
	for run in $runs; do run_ends "$1" 120; done
}

go_on() { progress "$((3 + $(date +%s) % 20))"; }

phase_interrupt() {
	imds_start
	configure
	jobs_begin
	each_job go_on
	imds_say '{"action": "terminate", "action_in": 120}'
	runs_end 75
	logged "EC2 will terminate this instance"
	echo "$name" >>/share/left
}

have_checkpoints() { [ "$(ckptctl status --json | grep -c '"checkpoints": [1-9]')" = "$jobs" ]; }

phase_commit() {
	configure "checkpoint_interval = 10s" "capture = cwd"
	jobs_begin
	await "a checkpoint of each job" 120 have_checkpoints
	each_job go_on
	echo "$name" >>/share/left
}

phase_refused() {
	configure
	ckptd_start
	each_job job_start
	runs_end 125
	each_job tell_refusal
}

tell_refusal() { grep '^ckpt: ' $errors; }

check_job() {
	test "$(grep -c 'goes on from checkpoint' $errors)" = "$(wc -l </share/left)"
	grep -v '^ckpt: ' out >/tmp/output
	check_output /tmp/output
	# shellcheck disable=SC2086 # a list of options
	check_digest /tmp/output "$mode" $options
}

phase_end() {
	configure "capture = cwd"
	jobs_begin
	each_job go_on
	touch /share/stop
	runs_end 0
	each_job check_job
	check_no_trace
}

node_be "$name"
jobs=$(wc -l </share/jobs)
node_phase "$name" "$phase"
