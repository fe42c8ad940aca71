#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: when the power goes, at whatever moment, no committed checkpoint goes with it, and nothing else stays
# KERNELS: first
# RUN: guest --disk 512 --timeout 1200
# Usage: unsynced.sh [CASE…]	(all)
#	 unsynced.sh --lose
#
# The store is on a disk that forgets, at a moment, what was written and not flushed: from then on dm-flakey drops all
# writes, until the file system is mounted anew and sees the disk as it is after a loss of power.
set -eu
. "${0%/*}/lib.sh"
self=$0
disk=/dev/mapper/disk
table="0 $(blockdev --getsz /dev/vda) flakey /dev/vda 0"

# ext4 does nothing here that it need not do: no data before the metadata that names it, no flush at a rename.
mount_disk() {
	case $(cat /tmp/kind) in
	ext4) mount -t ext4 -o data=writeback,noauto_da_alloc "$disk" "$store" ;;
	xfs) mount -t xfs "$disk" "$store" ;;
	esac
}

set_table() { # FEATURES
	dmsetup suspend --nolockfs --noflush disk
	echo "$table $1" | dmsetup load disk
	dmsetup resume disk
}

# Every second time another file is synced first: with it goes the metadata of all, but nobody's data.
lose_power() { # NUMBER
	[ $(($1 % 2)) = 0 ] || python3 -c '
import os, sys
file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
os.write(file, os.urandom(100))
os.fsync(file)' "$store/other"
	set_table "0 1 1 drop_writes"
	umount "$store"
	set_table "1 0"
	mount_disk
}

disk_make() { # KIND
	echo "$1" >/tmp/kind
	dmsetup remove disk 2>/dev/null || :
	echo "$table 1 0" | dmsetup create disk
	[ -e "$disk" ] || dmsetup mknodes disk
	case $1 in
	ext4) mke2fs -q -F -t ext4 "$disk" ;;
	xfs) mkfs.xfs -q -f "$disk" ;;
	esac
	mkdir -p "$store"
	mount_disk
}

disk_end() {
	umount "$store"
	dmsetup remove disk
}

# Not to be believed otherwise.
forgets() {
	echo kept >"$store/kept"
	sync "$store/kept" "$store"
	echo lost >"$store/lost"
	lose_power 0
	grep kept "$store/kept"
	fails grep lost "$store/lost"
}

at_points() { # KIND STEP: 1: at each, 4: at every fourth
	disk_make "$1"
	forgets
	echo 0 >/tmp/losses
	CKPT_TEST_STEP=$2 CKPT_TEST_DIRECTORY=$store CKPT_TEST_POWER="$self --lose" $tests/crash_test 2>&1 | tee /tmp/points
	grep -q 'PASSED.* 1 test' /tmp/points
	echo "$1: the power went $(cat /tmp/losses) times"
	test "$(cat /tmp/losses)" -gt $((100 / $2))
	disk_end
}

on_ext4() { at_points ext4 1; }

on_xfs() { at_points xfs 4; }

# All of it stops at once: nothing is written behind what the disk has.
lose_node() {
	set_table "0 1 1 drop_writes"
	kill -9 "$(cat /tmp/ckptd.pid)" "$run"
	kill -9 "$(pgrep -x ckpt-init)"
	await "the end of the job" 30 fails pgrep -x ckpt-init
	wait || :
}

# A job with its daemon, each time at another moment.
on_job() {
	disk_make ext4
	configure "checkpoint_interval = 10s"
	for number in 1 2 3; do
		ckptd_start
		run_start --job job -- "$workload" memory --stop stop --arena-mib 8
		[ $number = 1 ] || await "the restore" 120 grep -q "goes on from checkpoint" err
		await "a checkpoint" 90 field_is_least checkpoints 1
		progress $((3 + number))
		lose_node
		lose_power 0
		ckptctl verify --job job | tee /tmp/verified
		grep -q '^  manifest-.*  whole' /tmp/verified
		: >err
	done
	ckptd_start
	run_start --job job -- "$workload" memory --stop stop --arena-mib 8
	await "the restore" 120 grep -q "goes on from checkpoint" err
	progress 3
	touch stop
	run_ends 0
	check_output out
	check_digest out memory --arena-mib 8
	await "ckptd to forget the job" 30 no_jobs
	test -z "$(find "$store" -mindepth 1 ! -name lost+found ! -name other)"
	ckptd_stop
	disk_end
}

if [ "${1:-}" = --lose ]; then
	losses=$(($(cat /tmp/losses) + 1))
	echo $losses >/tmp/losses
	lose_power $losses
	exit
fi
modprobe dm-flakey
verbose=1
for name in ${*:-ext4 xfs job}; do try "$name" "on_$name"; done
finish
