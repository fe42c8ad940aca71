#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: no write is missed by collecting a job that runs, swaps and changes its mappings, on four CPUs and on two
# KERNELS: all
# RUN: guest --cpus 4 --disk 256
# Usage: dirty_oracle.sh [SEED]
set -eu
. "${0%/*}/oracle.sh"

# One kind of event at a time, with the ioctl's edges: small vectors, ranges of any size.
for events in '' d u m p w wu f fwu c s; do
	oracle pieces -n 4 -e "$events"
done
for mechanism in soft-dirty uffd-wp procfs; do
	oracle $mechanism -n 25
	oracle $mechanism -m 5 -n 10 -p 20
done
two_cpus
for mechanism in soft-dirty uffd-wp procfs; do
	oracle $mechanism -n 15
done
enough 35
