#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: trackers, jobs and the module end in any order
# KERNELS: all
# RUN: guest
set -eu
tests=$(dirname "$0")
modprobe ckpt
"$tests/lifetime"

# A tracker, and an open device, keep the module.
mkfifo /tmp/input /tmp/output
"$tests/lifetime" hold </tmp/input >/tmp/output &
exec 3>/tmp/input
read -r held </tmp/output
[ "$held" = held ]
if rmmod ckpt 2>/dev/null; then
	echo "the module was unloaded under a tracker"
	exit 1
fi
exec 3>&-
wait
exec 3</dev/ckpt
if rmmod ckpt 2>/dev/null; then
	echo "the module was unloaded under an open device"
	exit 1
fi
exec 3<&-
rmmod ckpt

# A userfaultfd that it gave does not.
modprobe ckpt
"$tests/lifetime" outlive </tmp/input >/tmp/output &
exec 3>/tmp/input
read -r held </tmp/output
rmmod ckpt
exec 3>&-
wait $!
echo "without the module: $held"

for _ in $(seq 50); do
	modprobe ckpt
	echo | "$tests/lifetime" hold >/dev/null
	rmmod ckpt
done
echo "50 times loaded, used and unloaded"
