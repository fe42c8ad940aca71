#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: ckptbench ladder runs a command in all six ways, advise tells what to configure for it, report shows both
# KERNELS: first
# RUN: guest
set -eu
. "${0%/*}/lib.sh"

ladder() {
	configure
	ladder_begin
	ckptbench ladder --class test --repeat 1 --checkpoints 2 --node exec:/tmp/other --off /tmp/off --on /tmp/on --json -- \
		"$workload" memory --steps 220 --pause-ms 50 --arena-mib 4 >/tmp/report.json
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

advice_is_whole() { # FILE
	python3 - "$1" <<'EOF'
import json
import sys

report = json.load(open(sys.argv[1]))
advice, cells = report["advice"], report["cells"]
epochs = [cell for cell in cells if cell["case"] == "epoch"]
checkpoints = [cell for cell in cells if cell["case"] == "checkpoint"]
assert len(epochs) == 9 and len(checkpoints) == 8, cells
assert advice["frozen_ms"] > 0 and advice["fixed_ms"] > 0 and advice["memory_mib"] > 4, advice
# Some MiB in all, which the window has room for.
assert advice["longest_epoch_interval_ms"] == 24 * 3600 * 1000, advice
assert all(cell["safety"] == "safe" and 0 < cell["most_mib"] <= advice["memory_mib"] for cell in epochs), epochs
best = checkpoints[-1]
assert best["interval_s"] * 1000 == advice["checkpoint_interval_ms"], advice
assert all(best["stopped"] + best["lost"] <= 1.01 * (cell["stopped"] + cell["lost"]) for cell in checkpoints), checkpoints
EOF
}

advise() {
	configure "epoch_interval = auto"
	ckptd_start
	mkdir -p "$job_dir"
	cd "$job_dir"
	ckptbench advise --class test --minutes 0.5 --mtbf 24 --json -- "$workload" memory --max-seconds 600 --arena-mib 4 \
		>/tmp/advice.json
	advice_is_whole /tmp/advice.json
	no_jobs
	job_dir=/home/scientist/there
	run_start --job there -- "$workload" memory --stop stop --arena-mib 4
	await "an epoch" 60 field_is_least epochs 1
	ckptbench advise --job 1000-there --minutes 0.2 --cost 10 >/tmp/advice
	cat /tmp/advice
	grep '^\[class test\]' /tmp/advice
	grep '^checkpoint_interval = [0-9]*s$' /tmp/advice
	progress 2
	touch stop
	run_ends 0
	check_no_trace
	fails ckptbench advise --job 1000-there 2>/tmp/said
	grep "no job '1000-there' here" /tmp/said
}

page() {
	mkdir -p /tmp/reports
	cp /tmp/advice.json /tmp/reports/advise.json
	cp /tmp/report.json /tmp/reports/ladder.json
	ckptbench policy --interruptions 20 --hours 1 --json >/tmp/reports/policy.json
	ckptbench policy --interruptions 20 --hours 1 --compare /tmp/reports/policy.json | grep ': 0 worse, 0 better'
	status=0
	ckptbench policy --interruptions 20 --hours 1 --reserve 1 --compare /tmp/reports/policy.json >/tmp/said || status=$?
	test $status = 3
	grep '^worse .*slow after notice.* made ' /tmp/said
	fails ckptbench policy --compare /tmp/nowhere 2>/tmp/said
	grep "/tmp/nowhere is no report" /tmp/said
	echo '{"cells": "<b>"}' >/tmp/reports/garbage.json
	ckptbench report /tmp/reports 2>/tmp/said
	grep "garbage.json is left out" /tmp/said
	python3 - <<'EOF'
import re
import xml.etree.ElementTree as tree

page = open("/tmp/reports/report.html").read()
plots = [tree.fromstring(plot) for plot in re.findall(r"<svg.*?</svg>", page, re.S)]
titles = [plot.find("text").text for plot in plots]
assert len(plots) == 6 and any("Flush forecast" in title for title in titles), titles
for plot in plots:
    numbers = re.findall(r"-?\d+\.\d", " ".join(mark.get("points", "") for mark in plot.iter("polyline")))
    assert plot.findall("rect") and "nan" not in tree.tostring(plot, encoding="unicode"), tree.tostring(plot)
    assert all(0 <= float(number) <= 820 for number in numbers), numbers
assert "http" not in page and "<script" not in page
EOF
	fails ckptbench report /tmp/nowhere 2>/tmp/said
	grep "No such file" /tmp/said
}

modprobe ckpt
try advise advise
try ladder ladder
try page page
try wrong wrong
finish
