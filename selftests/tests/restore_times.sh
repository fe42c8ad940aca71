#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Usage: restore_times.sh [MIB…]	(make restore-times) How long it takes until a restored job runs, eagerly and
#					lazily, by its size (256 1024 4096); needs a disk /dev/vda.
# Prints for each: ms until it runs (ckptd's), s from `ckptctl run` to the job's next word, s until all memory is there.
set -eu
. "${0%/*}/lib.sh"
mkfs.ext4 -q /dev/vda
mkdir -p /tmp/disk /var/lib/ckpt
mount /dev/vda /tmp/disk
mkdir -p /tmp/disk/work /tmp/disk/store
mount --bind /tmp/disk/work /var/lib/ckpt
store=/tmp/disk/store

# Pages that are alike cost as much here as others do, and less while they are made.
job='
import os, sys, time
page = os.urandom(4096)
memory = bytearray(page) * (int(sys.argv[1]) * 256)
step = 0
while not os.path.exists("stop"):
    step += 1
    at = step * 7919 * 4096 % len(memory)
    assert memory[at:at + 4096] == page
    print("step", step, flush=True)
    time.sleep(0.1)
assert memory == bytearray(page) * (len(memory) // 4096)
print("ok")
'

seconds_ms() { awk '{ printf "%d\n", $1 * 1000 }' /proc/uptime; }

measure() { # MIB eager|lazy
	rm -f "$job_dir"/*
	configure "restore = $2" "epoch_interval = auto"
	ckptd_restart
	echo 3 >/proc/sys/vm/drop_caches
	begin=$(seconds_ms)
	run_start --job "size$1" -- python3 -c "$job" "$1"
	until grep -q '^step' out; do sleep 0.02; done
	spoke=$(seconds_ms)
	await "the restore" 900 grep -q 'goes on from checkpoint' err
	runs=$(field restore_ms)
	[ "$2" = eager ] || await "its memory" 900 grep -q 'all of its memory is here' err
	all=$(seconds_ms)
	faults=$(field lazy_faults)
	echo "$1 MiB, $2: runs after $runs ms; first word after $((spoke - begin)) ms; all there after $((all - begin)) ms${faults:+; waited for $faults pages}"
	ckptctl drain
	run_ends 75 900
}

for mib in ${*:-256 1024 4096}; do
	configure "epoch_interval = auto"
	ckptd_start
	rm -f "$job_dir"/*
	run_start --job "size$mib" -- python3 -c "$job" "$mib"
	await "its first words" 900 grep -q '^step 3' out
	ckptctl drain
	run_ends 75 1200
	[ "$mib" -gt 1024 ] || measure "$mib" eager
	measure "$mib" lazy
	measure "$mib" lazy
	ckptd_stop
	rm -rf "${store:?}"/*
done
