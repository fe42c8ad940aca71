#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Usage: fencing_node.sh first|second	The nodes of fencing.sh. Both run the same line in the same directory, so both write
#					to the same output.
set -eu
. "${0%/*}/lib.sh"
store=/share/store
job_dir=/share/job

start() {
	run_start --job job -- "$workload" memory --stop stop --arena-mib 64 --max-seconds 1200
}

first() {
	# Its first epoch takes longer than a lease.
	configure "io_limit = 1M" "compress = none"
	ckptd_start
	start
	await "the job to run" 60 job_runs
	touch /share/started
	await "the refusal of the second" 120 test -e /share/refused
	configure "checkpoint_interval = 0"
	ckptctl reload
	ckptctl checkpoint 1000-job
	progress 3
	touch /share/ready
	await "the other node's word" 400 test -e /share/stopped
	await "the other node's word" 400 test -e /share/taken
	run_ends 125
	grep 'another node has taken over this job' err
	logged 'another node has taken over this job'
	await "ckptd to forget the job" 30 no_jobs
	fails pgrep -x workload
	echo "$(hostname): lost the job, and has ended it"
}

second() {
	configure
	ckptd_start
	await "the first node" 200 test -e /share/started
	errors=refusal start
	run_ends 125
	grep 'the job 1000-job runs on node node1; two of one job cannot run at a time' refusal
	touch /share/refused
	await "the first node's stop" 200 test -e /share/stopped
	start
	await "the restore" 120 grep -q "goes on from checkpoint" err
	progress 5
	touch /share/taken
	await "the first node's end" 120 test -e /share/lost
	progress 5
	touch stop
	run_ends 0
	check_output out
	check_digest out memory --arena-mib 64
	test -z "$(find "$store" -mindepth 1)"
	echo "$(hostname): took the job over; it ended after $(steps out) steps, as if it had never been interrupted"
}

install -d /etc/ckpt
install -m 600 /share/key /etc/ckpt/key
set +e
(
	set -e
	"$1"
) >/tmp/case 2>&1
status=$?
if [ $status = 0 ]; then cat /tmp/case; else tell; fi
exit $status
