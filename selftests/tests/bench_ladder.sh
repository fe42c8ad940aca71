#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: ckptbench ladder runs a command in all six ways, also on another node, and it does the same in each
# KERNELS: first
# RUN: guest
set -eu
. "${0%/*}/lib.sh"

# Another node, as far as ckptd can tell: a name, a /run/ckpt and a /var/lib/ckpt of its own. "$1" is a shell's line.
other_node_make() {
	unshare --mount --uts --fork sh -c '
		hostname other
		mount -t tmpfs tmpfs /run/ckpt
		mount -t tmpfs tmpfs /var/lib/ckpt
		exec ckptd >>/tmp/other.log 2>&1' &
	other=$!
	cat >/tmp/other <<-EOF
		#!/bin/sh
		exec nsenter --target $other --mount --uts --wd="\$PWD" sh -c "\$1"
	EOF
	chmod 755 /tmp/other
	await "ckptd on the other node" 60 /tmp/other "ckptctl status"
}

ladder() {
	mkdir -p /run/ckpt /var/lib/ckpt
	configure
	ckptd_start
	other_node_make
	mkdir -p "$job_dir"
	cd "$job_dir"
	cat >/tmp/off <<-EOF
		#!/bin/sh
		. $tests/lib.sh
		kill \$(cat /tmp/ckptd.pid)
		await "ckptd's end" 60 zombie_or_gone \$(cat /tmp/ckptd.pid)
		echo off >>/tmp/switched
	EOF
	cat >/tmp/on <<-EOF
		#!/bin/sh
		. $tests/lib.sh
		ckptd_start
		echo on >>/tmp/switched
	EOF
	chmod 755 /tmp/off /tmp/on
	ckptbench ladder --class test --repeat 1 --checkpoints 2 --node exec:/tmp/other --off /tmp/off --on /tmp/on --json -- \
		"$workload" memory --steps 150 --pause-ms 50 --arena-mib 4 >/tmp/report.json
	cat /tmp/report.json
	no_jobs
	test "$(sort /tmp/switched | uniq -c | tr -s ' \n' ' ')" = " 1 off 1 on "
	test "$(grep -c 'final checkpoint .* committed' /tmp/other.log)" = 1
	python3 - <<'EOF'
import json

report = json.load(open("/tmp/report.json"))
environment = report["environment"]
assert environment["kernel"] and environment["criu"] and environment["nodes"] == 2, environment
cells = {cell["case"]: cell for cell in report["cells"]}
assert list(cells) == ["baseline", "installed", "run", "same-node", "other-node", "chain"], list(cells)
for cell in cells.values():
    assert cell["samples"] == 1 and cell["output_differs"] == 0 and 0 < cell["min_s"] <= cell["median_s"] <= cell["max_s"], cell
    low, high = cell["interval_percent"]
    assert low <= cell["overhead_percent"] <= high and cell["noise"] == (low <= 0 <= high), cell
for name in "same-node", "other-node", "chain":
    cell = cells[name]
    assert 0 < cell["away_s"] < cell["median_s"] and 0 < cell["frozen_ms"] <= cell["flush_ms"], cell
    assert cell["restore_ms"] > 0 and cell["mib_written"] > 0, cell
EOF
}

wrong() {
	configure
	ckptd_start
	mkdir -p "$job_dir"
	cd "$job_dir"
	status=0
	ckptbench ladder --node elsewhere -- true 2>/tmp/said || status=$?
	test $status = 2
	grep "'elsewhere' is no node" /tmp/said
	fails ckptbench ladder --class test --repeat 1 -- true 2>/tmp/said
	cat /tmp/said
	grep "too short" /tmp/said
	fails ckptbench ladder --class test --repeat 1 -- /nowhere 2>/tmp/said
	grep "'/nowhere' cannot be executed" /tmp/said
	fails ckptbench ladder --class nosuch --repeat 1 -- sleep 2 2>/tmp/said
	cat /tmp/said
	grep "nosuch" /tmp/said
	no_jobs
}

modprobe ckpt
try ladder ladder
try wrong wrong
finish
