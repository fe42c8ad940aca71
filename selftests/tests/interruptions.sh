#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Usage: interruptions.sh [COUNT [SEED]]	(make interruptions) Three jobs are interrupted, COUNT times (100) in all, at
#						random moments: also while they start or are restored. Each notice
#						hits all three. At the end each is as if nothing had been.
set -eu
. "${0%/*}/lib.sh"
count=${1:-100}
seed=${2:-$(date +%s)}
jobs="memory tree matrix"

# A scientist's line for each.
job_start() { # JOB
	job_dir=/home/scientist/$1
	case $1 in
	matrix) run_start --job matrix -- python3 $tests/matrix.py --stop stop ;;
	*) run_start --job "$1" -- "$workload" "$1" --stop stop --arena-mib 16 --max-seconds 7200 ;;
	esac
	runs="$runs $run"
}

jobs_start() {
	runs=
	for job in $jobs; do job_start "$job"; done
}

# How many were saved, and how long it took at most.
account() {
	grep -c 'final checkpoint .* committed' $log
	awk '
		/ this node will be taken away / { begin = substr($0, 2, index($0, "]") - 2) + 0 }
		/ final checkpoint .* committed/ { took = substr($0, 2, index($0, "]") - 2) - begin; if (took > most) most = took }
		END { printf "the slowest final checkpoint was durable %.1f s after its notice\n", most }' $log
}

interrupt() {
	jobs_start
	# From the first moment to some seconds after all of them run.
	random_below 160
	sleep "$((random / 10)).$((random % 10))"
	imds_say '{"action": "terminate", "action_in": 120}'
	for run in $runs; do run_ends 75 115; done
	fails logged "is not durable"
	ckptd_stop
	imds_say '{"action": null}'
}

story() {
	imds_start
	configure "capture = cwd"
	done=0
	while [ $done -lt "$count" ]; do
		ckptd_start
		interrupt
		done=$((done + 3))
		echo "$done interruptions, $(account | tr '\n' ' ' | sed 's/ / final checkpoints, /')" >&3
	done
	ckptd_start
	jobs_start
	for job in $jobs; do
		job_dir=/home/scientist/$job
		progress 5
		touch "$job_dir/stop"
	done
	for run in $runs; do run_ends 0; done
	for job in $jobs; do
		check_output "/home/scientist/$job/out"
		echo "$job: restored $(grep -c 'goes on from checkpoint' "/home/scientist/$job/err") times, $(steps \
			"/home/scientist/$job/out") steps"
	done
	for job in memory tree; do check_digest "/home/scientist/$job/out" $job --arena-mib 16; done
	python3 $tests/matrix.py --steps "$(steps /home/scientist/matrix/out)" | tail -n 1 >/tmp/matrix.reference
	tail -n 1 /home/scientist/matrix/out | diff /tmp/matrix.reference -
	check_no_trace
	echo "$done interruptions, none missed, none wrong; final checkpoints committed:"
	account
}

echo "seed $seed"
verbose=1
exec 3>&1
try interruptions story
finish
