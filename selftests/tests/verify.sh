#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: damage in a store is found, named and passed by; the cluster's key can be changed under a job, or be wrong
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

try whole whole
try damaged damaged
try nothing_whole nothing_whole
try key_changed key_changed
finish
