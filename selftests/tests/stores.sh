#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: a job is saved in and restored from a store on ext4, XFS and tmpfs, and how it is written there is said
# KERNELS: first
# RUN: guest --disk 512
set -eu
. "${0%/*}/lib.sh"

trip() { # WRITES MOUNT-ARGUMENT…
	writes=$1
	shift
	mkdir -p "$store"
	mount "$@" "$store"
	configure "checkpoint_interval = 10s"
	ckptd_start
	memory_job_start
	await "a checkpoint" 60 field_is_least checkpoints 1
	ckptctl status --json | grep "\"writes\": \"$writes"
	memory_job_finish
	test -z "$(find "$store" -mindepth 1 ! -name lost+found)"
	ckptd_stop
	umount "$store"
}

on_ext4() {
	mke2fs -q -F -t ext4 /dev/vda
	trip "direct" -t ext4 /dev/vda
}

on_xfs() {
	mkfs.xfs -q -f /dev/vda
	trip "direct" -t xfs /dev/vda
}

# No O_DIRECT there before 6.6.
on_tmpfs() {
	trip "through the page cache: no O_DIRECT" -t tmpfs -o mode=755 tmpfs
}

modprobe ckpt
for kind in ext4 xfs tmpfs; do try "$kind" "on_$kind"; done
finish
