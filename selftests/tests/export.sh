#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: an exported checkpoint is restored by CRIU where nothing of ckpt is left, for each mechanism and compression
# KERNELS: criu
# RUN: guest --timeout 900
# Usage: export.sh [MECHANISM]…	(all, with - as _)
set -eu
. "${0%/*}/lib.sh"

programs="/usr/bin/ckptctl /usr/sbin/ckptd /usr/lib/ckpt/ckpt-init /usr/lib/ckpt/criu-preload.so"
output=/var/lib/ckpt/jobs/1000-job/stdout

ckpt_goes() {
	ckptd_stop
	chmod 0 $programs
	rmmod ckpt
}

ckpt_comes() {
	chmod 755 $programs
	modprobe ckpt
}

# The job's own end, without a checkpoint: what it did after the last one is lost.
job_dies() {
	kill -9 "$(awk '/^PPid/ { print $2 }' "/proc/$(field pid)/status")"
	run_ends 125
}

steps_follow() { [ -e $output ] && [ "$(steps $output)" -ge 5 ]; }

# What it printed before the checkpoint, and what it prints since.
join_output() {
	tr -d '\0' <$output >since
	first=$(sed -n 's/^step //p;1q' since)
	sed "/^step $first\$/,\$d" out >whole
	cat since >>whole
}

restore() { /tmp/exported/restore.sh ${files:-} || { tail -n 30 /tmp/exported/restore.log; return 1; }; }

round_trip() { # MODE
	ckptd_start
	run_start --job job -- "$workload" "$1" --stop "$job_dir/stop" --arena-mib 8
	await "two epochs" 90 field_is_least epochs 2
	progress 3
	ckptctl checkpoint 1000-job
	progress 3
	fails ckptctl export job "$job_dir"
	ckptctl export job /tmp/exported
	ckptctl verify
	job_dies
	ckpt_goes
	restore &
	restored=$!
	await "steps of the restored job" 90 steps_follow
	touch stop
	await_status 90 $restored
	ckpt_comes
	join_output
	check_output whole
	check_digest whole "$1" --arena-mib 8
}

soft_dirty() {
	configure "mechanism = soft-dirty" "compress = lz4"
	round_trip shared
}

uffd_wp() {
	configure "mechanism = uffd-wp" "compress = zstd:3" "seal = none"
	mechanism_works uffd-wp || return 0
	round_trip tree
}

procfs() {
	configure "mechanism = procfs" "compress = none" "seal = none"
	mechanism_works procfs || return 0
	round_trip threads
}

# Captured files and a private directory, too, in which the export itself lies.
hash() {
	configure "mechanism = hash" "compress = none" "capture = cwd" "private = /tmp, /dev/shm"
	files=--files
	round_trip files
}

for mechanism in ${*:-soft_dirty uffd_wp procfs hash}; do
	try "$mechanism" "$mechanism"
	ckpt_comes
	rm -rf /tmp/exported
done
finish
