#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: whatever happens to whichever kind of memory, each mechanism reports what changed
# KERNELS: all
# RUN: guest --disk 256
# Usage: matrix.sh [MECHANISM…]	(all that this kernel has)
set -eu
tests=$(dirname "$0")
modprobe ckpt
modprobe nbd nbds_max=1 max_part=0 || :
modprobe kvm_amd || modprobe kvm_intel || :
mkswap /dev/vda >/dev/null
swapon /dev/vda
echo 8 >/proc/sys/vm/nr_hugepages
# The kernel would write the CPU's number into the job's memory whenever it runs again.
export GLIBC_TUNABLES=glibc.pthread.rseq=0
failed=
for mechanism in ${*:-soft-dirty uffd-wp procfs hash}; do
	status=0
	"$tests/matrix" "$mechanism" || status=$?
	[ "$status" = 0 ] || [ "$status" = 77 ] || failed=1
done
[ ! "$failed" ]
