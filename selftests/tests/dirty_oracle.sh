#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: no write is missed by collecting a job that runs, swaps and changes its mappings, on four CPUs and on two
# KERNELS: all
# RUN: guest --cpus 4 --disk 256
# Usage: dirty_oracle.sh [SEED]
set -eu
tests=$(dirname "$0")
modprobe ckpt
mkswap /dev/vda >/dev/null
swapon /dev/vda
seed=${1:-$(date +%s)}
echo "seed $seed"

oracle() { # MECHANISM OPTION…
	mechanism=$1
	shift
	status=0
	"$tests/dirty_oracle" -M "$mechanism" -s "$seed" "$@" || status=$?
	[ "$status" = 0 ] || [ "$status" = 77 ]
}

# One kind of event at a time, with the ioctl's edges: small vectors, ranges of any size.
for events in '' d u m p w wu f fwu c s; do
	oracle pieces -n 24 -e "$events"
done
for mechanism in soft-dirty uffd-wp procfs; do
	oracle $mechanism -n 120 -w 500000
	oracle $mechanism -n 50 -w 200000 -p 40
done
oracle hash -m 4 -n 120 -w 500000
oracle hash -m 4 -n 50 -w 200000 -p 16

echo 0 >/sys/devices/system/cpu/cpu2/online
echo 0 >/sys/devices/system/cpu/cpu3/online
for mechanism in soft-dirty uffd-wp procfs; do
	oracle $mechanism -n 60 -w 300000
done
oracle hash -m 4 -n 60 -w 300000
