#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: a lazily restored job runs at once and finds all its memory as it was, whatever it does with it meanwhile
# KERNELS: criu
# FURTHER: tree shared changes_missing several_threads
# RUN: guest --mem 2048
# Usage: lazy.sh [CASE…]
set -eu
. "${0%/*}/lib.sh"

# --- every kind of job ---

saved() { # COMMAND…
	configure "restore = lazy"
	ckptd_start
	run_start -- "$@"
	await "two epochs" 60 field_is_least epochs 2
	progress 3
	ckptctl drain
	run_ends 75
}

restored() { # [VARIABLE=VALUE]… -- COMMAND…
	faults=
	while [ "$1" != -- ]; do faults="$faults $1"; shift; done
	shift
	# shellcheck disable=SC2086 # a list
	ckptd_restart $faults
	run_start -- "$@"
	await "the restore" 90 grep -q "come while it runs" err
}

all_here() { await "the rest of its memory" 120 grep -q "all of its memory is here" err; }

check_workload() { # MIB
	check_output out
	check_digest out "$mode" --arena-mib "$1"
}

case_kind() {
	saved "$workload" "$mode" --stop stop --arena-mib 16
	restored -- "$workload" "$mode" --stop stop --arena-mib 16
	all_here
	progress 5
	await "an epoch after the restore" 60 field_is_least epochs 2
	touch stop
	run_ends 0
	check_workload 16
	check_no_trace
}

# --- what a program does to memory that is missing ---

actor() { echo "$tests/lazy_job --stop stop --busy busy --mib 8 $*"; }

act() { # FAULTS LAZY_JOB-OPTION…
	ahead=$1
	shift
	# shellcheck disable=SC2046 # a command
	saved $(actor "$@")
	# shellcheck disable=SC2046,SC2086
	restored $ahead -- $(actor "$@")
	touch busy
	progress 20
	touch stop
	run_ends 0
	check_output out
	check_no_trace
}

case_changes() { act ""; }

# Nothing comes but what is asked for: all that it does it does to memory that is missing.
case_changes_missing() { act CKPT_FAULT=lazy.no_ahead; }

# Events of several threads may have no order that the kernel tells: then the job is ended, and is right after that.
case_threads() {
	# shellcheck disable=SC2046
	saved $(actor --threads 4)
	# shellcheck disable=SC2046
	restored CKPT_FAULT=lazy.no_ahead -- $(actor --threads 4)
	touch busy
	if await "20 more steps" 30 steps_are_least $(($(steps out) + 20)) out; then
		touch stop
		run_ends 0
	else
		run_ends 75
		grep 'could not be restored: a process of several threads .*goes on from its last checkpoint' err
		touch stop
		# shellcheck disable=SC2046
		run_start -- $(actor --threads 4)
		run_ends 0
		grep 'is restored eagerly: the restore before this one' err
	fi
	check_output out
	check_no_trace
}

# --- ckptd meanwhile ---

# What is asked for before all memory is here is done then.
restores_are() { [ "$(grep -c "come while it runs" err)" = "$1" ]; } # COUNT

case_asked_meanwhile() {
	saved "$workload" memory --stop stop --arena-mib 48
	restored -- "$workload" memory --stop stop --arena-mib 48
	ckptctl checkpoint "$(ckptctl status --json | sed -n 's/^ *"job": "\(.*\)",*$/\1/p')"
	grep "all of its memory is here" err
	ckptctl drain
	run_ends 75
	ckptd_restart
	run_start -- "$workload" memory --stop stop --arena-mib 48
	await "the second restore" 90 restores_are 2
	# A notice at once.
	ckptctl drain
	run_ends 75
	ckptd_restart
	run_start -- "$workload" memory --stop stop --arena-mib 48
	await "the third restore" 90 restores_are 3
	touch stop
	run_ends 0
	mode=memory
	check_workload 48
	check_no_trace
}

for case in ${*:-memory vfork threads tree shared files changes changes_missing several_threads asked_meanwhile}; do
	mode=$case
	case $case in
	changes | changes_missing | asked_meanwhile) try "$case" "case_$case" ;;
	several_threads) try "$case" case_threads ;;
	*) try "$case" case_kind ;;
	esac
done
finish
