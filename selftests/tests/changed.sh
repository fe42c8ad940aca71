#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: a job whose program or input is another one than at its checkpoint is not restored, and is when that is back
# KERNELS: first
# RUN: guest
set -eu
. "${0%/*}/lib.sh"

saved() { # COMMAND…
	run_start "$@"
	await "two epochs" 60 field_is_least epochs 2
	progress 1
	ckptctl drain
	run_ends 75
	ckptd_restart
}

refused() { # PATTERN COMMAND…
	pattern=$1
	shift
	run_start "$@"
	run_ends 125
	cat err
	grep "$pattern" err
	: >err
}

goes_on() { # COMMAND…
	run_start "$@"
	await "the restore" 60 grep "goes on from checkpoint" err
	progress 3
	touch stop
	run_ends 0
	check_output out
	check_no_trace
}

# Without a build id, by which CRIU would know it; the other one is as large.
program() { # FILE TEXT
	python3 -c '
import sys
data = open(sys.argv[1], "rb").read()
note = b"\x03\0\0\0GNU\0"
assert note in data and b"arena" in data
with open(sys.argv[2], "wb") as out:
    out.write(data.replace(note, b"\x07\0\0\0GNU\0").replace(b"arena", sys.argv[3].encode()))' "$workload" "$1" "$2"
	chmod 755 "$1"
}

case_program() {
	configure
	ckptd_start
	mkdir -p "$job_dir"
	program "$job_dir/solver" arena
	program /tmp/other other
	cp -p "$job_dir/solver" /tmp/solver
	set -- -- ./solver memory --stop stop --arena-mib 4
	saved "$@"
	cp --remove-destination /tmp/other "$job_dir/solver"
	refused "$job_dir/solver, which the job executes, is not what it was at the checkpoint: .*Put back" "$@"
	cp --remove-destination /tmp/solver "$job_dir/solver"
	goes_on "$@"
}

case_input() {
	configure
	ckptd_start
	mkdir -p "$job_dir"
	echo begin >"$job_dir/input"
	set -- -- python3 -uc '
import os, time
file = open("input")
step = 0
while not os.path.exists("stop"):
    step += 1
    print("step", step)
    time.sleep(0.1)
print("ok input")'
	saved "$@"
	echo more >>"$job_dir/input"
	refused "input has bad size 11 (expect 6).*put it back as it was" "$@"
	truncate -s 6 "$job_dir/input"
	goes_on "$@"
}

# A file of somebody else's, under the name of one that the job writes, is not cut.
case_output() {
	configure
	ckptd_start
	mkdir -p "$job_dir"
	set -- -- python3 -uc '
import os, time
file = open("output", "a")
step = 0
while not os.path.exists("stop"):
    step += 1
    print("step", step)
    print("step", step, file=file, flush=True)
    time.sleep(0.1)
print("ok output")'
	saved "$@"
	mv "$job_dir/output" "$job_dir/kept"
	seq 1000 >"$job_dir/output"
	chown scientist: "$job_dir/output"
	refused "$job_dir/output is another file than the one that the job had open for writing" "$@"
	seq 1000 | diff - "$job_dir/output"
	# What came after the checkpoint.
	echo more >>"$job_dir/kept"
	mv "$job_dir/kept" "$job_dir/output"
	goes_on "$@"
	grep ^step out | diff - "$job_dir/output"
}

for name in ${*:-program input output}; do
	try "$name" "case_$name"
done
finish
