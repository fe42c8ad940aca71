#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: what is in a store is listed, shown and pruned; damage in it is found, named and passed by; the cluster's key can be changed under a job, or be wrong
# KERNELS: first
# RUN: guest --timeout 900
set -eu
. "${0%/*}/lib.sh"

job_start() { run_start --job job -- "$workload" memory --stop stop --arena-mib 8; }

checkpoint() { ckptctl checkpoint 1000-job; }

two_checkpoints() {
	job_start
	await "an epoch" 60 field_is_least epochs 1
	checkpoint
	progress 3
	checkpoint
	progress 3
}

job_ends_well() {
	await "the restore" 120 grep -q "goes on from checkpoint" err
	progress 3
	touch stop
	run_ends 0
	check_output out
	check_digest out memory --arena-mib 8
	check_no_trace
}

verified() { # STATUS
	status=0
	ckptctl verify --job job >/tmp/verified || status=$?
	cat /tmp/verified
	[ "$status" = "$1" ]
	ckptctl verify --json >/tmp/verified.json || :
}

newest() { # START: of the names of files
	(cd "$store/1000-job" && ls -t "$1"* | head -n 1)
}

flip() { # NAME OFFSET: from the end
	python3 -c 'import sys
with open(sys.argv[1], "r+b") as file:
    place = file.seek(-int(sys.argv[2]), 2)
    byte = file.read(1)[0]
    file.seek(place)
    file.write(bytes([byte ^ 4]))' "$store/1000-job/$1" "$2"
}

whole() {
	configure "keep = 3"
	ckptd_start
	two_checkpoints
	verified 0
	test "$(grep -c '^  manifest-.*  whole' /tmp/verified)" = 2
	test "$(grep -c '"whole": true' /tmp/verified.json)" = 2
	grep -q '"damages": \[\]' /tmp/verified.json
	fails as_scientist ckptctl verify --job job
	fails ckptctl verify --job another
	ckptctl drain
	run_ends 75
	verified 0
	grep "final" /tmp/verified
}

# Of the segment that only the newest checkpoint needs; then of its manifest; then of all that there is.
damaged() {
	configure "keep = 3"
	ckptd_start
	two_checkpoints
	ckptctl drain
	run_ends 75
	segment=$(newest seg-)
	flip "$segment" 100
	verified 1
	grep "damaged: $segment at [0-9]*: .*$segment.*the block at" /tmp/verified
	test "$(grep -c '  NOT WHOLE' /tmp/verified)" = 1
	test "$(grep -c '  whole' /tmp/verified)" = 2
	ckptd_restart
	job_start
	await "the restore" 120 grep -q "goes on from checkpoint" err
	grep "$segment.*trying the checkpoint before it" err
	grep "$(sed -n 's/^  a restore goes on from //p' /tmp/verified)" err
	progress 3
	ckptctl drain
	run_ends 75
	manifest=$(newest manifest-)
	flip "$manifest" 50
	verified 1
	grep "damaged: $manifest at 128: " /tmp/verified
	ckptd_restart
	: >err
	job_start
	await "the restore" 120 grep -q "goes on from checkpoint" err
	grep "$manifest.*trying the checkpoint before it" err
	job_ends_well
}

nothing_whole() {
	configure
	ckptd_start
	two_checkpoints
	ckptctl drain
	run_ends 75
	for name in $(cd "$store/1000-job" && ls -d manifest-*); do flip "$name" 30; done
	verified 1
	grep "there is nothing that can be restored" /tmp/verified
	left=$(find "$store" | wc -l)
	ckptd_restart
	job_start
	run_ends 125
	grep "manifest-.*damaged" err
	test "$(find "$store" | wc -l)" -ge "$left"
}

key_ids() { ckptctl key list | awk '{ print $1 }'; }

key_changed() {
	rm -f /etc/ckpt/key
	configure "compress = none" "seal = none"
	rm /etc/ckpt/key
	ckptctl key new
	ckptd_start
	job_start
	await "an epoch" 60 field_is_least epochs 1
	checkpoint
	old=$(key_ids)
	ckptctl key new
	new=$(key_ids | tail -n 1)
	fails ckptctl key remove "$old"
	ckptd_restart
	progress 3
	checkpoint
	verified 0
	fails grep "$new" /tmp/verified
	ckptctl key use "$new"
	ckptd_restart
	progress 3
	checkpoint
	verified 0
	grep "key $new: " /tmp/verified
	grep "key $old: " /tmp/verified
	ckptctl drain
	run_ends 75
	cp /etc/ckpt/key /tmp/both
	ckptctl key remove "$old"
	ckptd_restart
	job_start
	run_ends 125
	grep "sealed with the cluster key $old, which this node has not" err
	fails ckptctl verify
	install -m 600 /tmp/both /etc/ckpt/key
	ckptd_restart
	job_start
	job_ends_well
}

says() { # STATUS PATTERN COMMAND…
	expected=$1 pattern=$2 status=0
	shift 2
	"$@" >/tmp/said 2>&1 || status=$?
	cat /tmp/said
	if [ $status != "$expected" ] || ! grep -q -- "$pattern" /tmp/said; then
		echo "$*: status $status, expected $expected and '$pattern'"
		return 1
	fi
}

# What --json prints, as Python's "found".
check_json() { # EXPRESSION COMMAND…
	expression=$1
	shift
	"$@" --json >/tmp/found.json || :
	python3 -c '
import json, sys
found = json.load(open("/tmp/found.json"))
assert eval("(" + sys.argv[1] + ")"), found' "$expression"
}

wrong_input() {
	says 0 "there are no jobs in the stores" ckptctl list
	# Who may write the store calls a directory what he likes: it would be a line of its own, of another's job.
	mkdir "$store/1000-x
1001-y"
	says 0 "there are no jobs in the stores" ckptctl list
	rmdir "$store/1000-x"*
	check_json 'found == []' ckptctl list
	says 0 "^0 removed, 0 left" ckptctl prune
	check_json 'found == []' ckptctl prune
	says 125 "there is nothing of a job 'nosuch'" ckptctl show nosuch
	says 125 "there is nothing of a job 'nosuch'" ckptctl prune nosuch
	says 125 "cannot list the store /nothing: No such file" ckptctl list --store /nothing
	says 2 "^Usage: ckptctl list" ckptctl list job
	says 2 "^Usage: ckptctl show" ckptctl show
	for age in soon 5 -1h 1x; do says 2 "^Usage: ckptctl prune" ckptctl prune --older $age; done
	for command in list "show job" prune; do
		# shellcheck disable=SC2086 # two words
		says 2 "must be run as root" as_scientist ckptctl $command
		says 0 "^Usage: ckptctl" ckptctl $command --help
	done
}

commands() {
	configure "keep = 3"
	wrong_input
	ckptd_start
	two_checkpoints
	says 0 "^1000-job  *running  *guest  *2 " ckptctl list
	check_json 'found[0]["state"] == "running" and len(found[0]["checkpoints"]) == 2 and found[0]["bytes"] > 8 << 20' \
		ckptctl list
	says 0 "left: a node runs it" ckptctl prune job
	ckptctl drain
	run_ends 75
	says 0 "^1000-job  *saved  *guest  *3 " ckptctl list
	says 0 ", final\$" ckptctl show job
	test "$(grep -c "command .*workload memory --stop stop" /tmp/said)" = 3
	check_json '[c["final"] for c in found[0]["checkpoints"]] == [True, False, False] and
		found[0]["checkpoints"][0]["meta"]["class"] == "test"' ckptctl show 1000-job

	manifest=$(newest manifest-)
	flip "$manifest" 50
	says 1 "$manifest  cannot be restored: .*damaged" ckptctl show job
	test "$(grep -c "command .*workload" /tmp/said)" = 2
	check_json '"damaged" in found[0]["checkpoints"][0]["problem"]' ckptctl show job
	says 0 "^1000-job .* 3 " ckptctl list
	flip "$manifest" 50

	says 0 "left: it waits to be run again" ckptctl prune
	says 0 "left: its time has not come" ckptctl prune --older 1h
	says 0 "^1 would be removed, 0 left" ckptctl prune --dry-run job
	test -e "$store/1000-job/$manifest"
	# A restore could have begun until the lease has ended.
	await "the end of its lease" 90 check_json 'found[0]["result"] == "removed"' ckptctl prune job
	test ! -e "$store/1000-job"
	says 0 "there are no jobs in the stores" ckptctl list
}

pruned_after_end() {
	configure "keep_after_end = 1h"
	ckptd_start
	job_start
	await "an epoch" 60 field_is_least epochs 1
	checkpoint
	touch stop
	run_ends 0
	await "ckptd to forget the job" 30 no_jobs
	says 0 "^1000-job  *ended  *-  *0 " ckptctl list
	says 0 "is kept until .*; no run goes on with it" ckptctl show job
	says 0 "left: its time has not come" ckptctl prune
	says 0 "^1 removed, 0 left" ckptctl prune --older 0s
	test ! -e "$store/1000-job"
}

# A person at a terminal sees how far it is.
progress_bar() {
	configure
	ckptd_start
	run_start --job job -- python3 $tests/chain.py 96 1 --stop stop
	progress 2
	ckptctl drain
	run_ends 75
	ckptd_restart
	touch stop
	script -qec "exec setpriv --reuid scientist --regid scientist --init-groups --reset-env \
		ckptctl run --class test --job job -- python3 $tests/chain.py 96 1 --stop stop" /tmp/typescript
	grep "restoring  \[#*-*\]  *[0-9]* %  .* of .* MiB  .*/s" /tmp/typescript
	grep "goes on from checkpoint" /tmp/typescript
	grep "^ok " /tmp/typescript
}

try commands commands
try pruned_after_end pruned_after_end
try progress_bar progress_bar
try whole whole
try damaged damaged
try nothing_whole nothing_whole
try key_changed key_changed
finish
