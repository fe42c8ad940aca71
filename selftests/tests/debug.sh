#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Usage: debug.sh [TEST…]	(make check-debug) The tests of the module, on a kernel that finds mistakes, and a scan for leaks
#				at the end. The kernel panics at its first warning.
set -eu
tests=$(dirname "$0")
mount -t debugfs debugfs /sys/kernel/debug
for test in ${*:-abi regions lifetime trackers fail_nth fuzz matrix dirty_oracle}; do
	begin=$(cut -d. -f1 /proc/uptime)
	"$tests/$test.sh" >/tmp/out 2>&1 || {
		cat /tmp/out
		echo "not ok debug/$test"
		exit 1
	}
	swapoff -a
	tail -n 3 /tmp/out
	echo "ok debug/$test ($(($(cut -d. -f1 /proc/uptime) - begin)) s)"
done
! grep -q "^ckpt " /proc/modules || rmmod ckpt

# What is still referenced only by chance is not by the third scan; young objects are not reported.
for _ in 1 2 3; do
	sleep 6
	echo scan >/sys/kernel/debug/kmemleak
done
cat /sys/kernel/debug/kmemleak
if [ -s /sys/kernel/debug/kmemleak ] && grep -q . /sys/kernel/debug/kmemleak; then
	echo "not ok debug/kmemleak"
	exit 1
fi
echo "ok debug/kmemleak: nothing leaked"
