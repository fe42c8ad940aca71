#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: ckptbench dump compares a job's checkpoints with criu's dumps, and each writes what it has to
# KERNELS: first
# RUN: guest --disk 1024
set -eu
. "${0%/*}/lib.sh"

on_disk() {
	mke2fs -q -F -t ext4 /dev/vda
	mkdir -p "$store"
	mount /dev/vda "$store"
}

own_jobs() {
	on_disk
	configure "epoch_interval = 1h"
	ckptd_start
	ckptbench dump --mib 32,64 --written 0,2 --repeat 2 --class test --directory "$store/criu" --json >/tmp/report.json
	cat /tmp/report.json
	no_jobs
	test -z "$(find "$store" -mindepth 1 ! -name lost+found)"
	python3 - <<'EOF'
import json

report = json.load(open("/tmp/report.json"))
assert report["environment"]["criu"] and report["environment"]["kernel"], report["environment"]
cells = {(cell["mib"], cell["written"]): cell for cell in report["cells"]}
assert sorted(cells) == [(32, 0), (32, 0.02), (64, 0), (64, 0.02)], cells.keys()
for (mib, share), cell in cells.items():
    pages, written = mib * 256, mib * 256 * share
    full, incremental, ours = (cell[who]["pages_written"] for who in ("criu", "criu_incremental", "ours"))
    assert pages <= full < pages + 1024, cell
    assert written * 0.9 <= incremental < written + 1024, cell
    # What was written before was streamed while the job ran.
    assert ours < 200, cell
    for who in "criu", "criu_incremental", "ours":
        assert 0 < cell[who]["frozen_ms"] < cell[who]["durable_ms"], cell
EOF
}

job_of_another() {
	on_disk
	configure
	ckptd_start
	run_start --job other -- "$workload" memory --stop stop --arena-mib 4
	await "an epoch" 60 field_is_least epochs 1
	ckptbench dump --repeat 1 --directory "$store/criu" 1000-other | tee /tmp/report
	grep -q '^job stands still: checkpoint of ckptd  *[0-9]' /tmp/report
	progress 2
	touch stop
	run_ends 0
	check_output out
	check_digest out memory --arena-mib 4
	check_no_trace_but_disk
}

check_no_trace_but_disk() {
	await "ckptd to forget the job" 30 no_jobs
	test -z "$(find "$store" -mindepth 1 ! -name lost+found)"
}

modprobe ckpt
try own_jobs own_jobs
try job_of_another job_of_another
finish
