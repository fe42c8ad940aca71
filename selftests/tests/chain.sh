#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: a job is restored ten times in a row, each time elsewhere: unwritten pages cost nothing, the store stays small
# KERNELS: first
# RUN: guest --timeout 900
# Usage: chain.sh [COUNT]
set -eu
. "${0%/*}/lib.sh"
count=${1:-10}
mib=32
pages=8

use_cpus() { # LIST
	# shellcheck disable=SC2016 # in a case $$ is not this shell
	sh -c 'taskset -pc "$1" "$PPID" >/dev/null' sh "$1"
}

# On one CPU, as a scheduler may say it.
job_start() {
	use_cpus 1
	run_start --job job -- python3 $tests/chain.py $mib $pages --stop stop
	use_cpus 0,1
}

# Pages that were written since ckptd's start: by epochs, without those that only move to a denser segment, and by the
# final checkpoint.
written_pages() {
	sed -n 's/.* epoch: .* dirty, \([0-9]*\) written (.* \([0-9]*\) moved).*/\1 \2/p
		s/.* committed: .* pages, \([0-9]*\) written.*/\1 0/p' $log | awk '{ sum += $1 - $2 } END { print sum + 0 }'
}

# Of the last checkpoint.
saved_pages() { sed -n 's/.* committed: \([0-9]*\) pages.*/\1/p' $log | tail -n 1; }

store_kib() { du -sk --apparent-size "$store" | cut -f1; }

# What the job can have written meanwhile, twice over, and what an interpreter of Python needs besides.
check_written() { # PAGES STEPS
	allowed=$((2 * $2 * pages + 1200))
	if [ "$1" -gt $allowed ] || [ $allowed -gt $((mib * 256 / 2)) ]; then
		echo "$1 pages were written, at most $allowed are expected, of $((mib * 256))"
		return 1
	fi
}

# Two checkpoints are kept, which differ by what was written here; a third may be dead, and one epoch, as large as the
# job, is not cleaned yet.
check_store() { # KIB WRITTEN
	live=$(($(saved_pages) + $2))
	if [ "$1" -gt $((live * 4 * 3 / 2 + mib * 1024)) ]; then
		echo "the store has $1 KiB, for $live pages"
		return 1
	fi
}

one_node() { # NUMBER
	echo "node$1" >/proc/sys/kernel/hostname
	ip address flush to 10.99.0.17/32 dev lo
	: >$log
	before=$(steps out || :)
	ckptd_start
	job_start
	if [ "$1" = 1 ]; then
		await "its memory to be filled" 120 steps_are_least 3 out
	else
		await "the restore" 120 logged "goes on from checkpoint"
	fi
	await "two epochs" 120 field_is_least epochs 2
	[ "$1" = 1 ] || check_name
	ckptctl drain
	run_ends 75
	ckptd_stop
	written=$(written_pages)
	size=$(store_kib)
	echo "node$1: $(($(steps out) - before)) steps, $written pages written, the store has $size KiB"
	check_store "$size" "$written"
	[ "$1" = 1 ] || check_written "$written" $(($(steps out) - before))
}

# The job is in the node's own namespaces of names and networks.
check_name() {
	for what in uts net; do
		test "$(readlink "/proc/$(field pid)/ns/$what")" = "$(readlink /proc/self/ns/$what)"
	done
	test "$(hostname)" = solver
	ip -brief address show lo | grep -q 10.99.0.17/32
	taskset -pc "$(field pid)" | grep 'list: 1$'
}

story() {
	configure "$(readme_hook take-name)"
	mkdir -p "$job_dir"
	touch "$job_dir/out"
	chown -R scientist: "$job_dir"
	cd "$job_dir"
	node=0
	while [ $node -lt "$count" ]; do
		node=$((node + 1))
		one_node $node
	done
	ckptd_start
	job_start
	progress 3
	touch stop
	run_ends 0
	test "$(grep -c 'goes on from checkpoint' err)" = "$count"
	check_output out
	python3 $tests/chain.py $mib $pages --steps "$(steps out)" | tail -n 1 >reference
	tail -n 1 out | diff reference -
	check_no_trace
}

verbose=1
try chain story
finish
