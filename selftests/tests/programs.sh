#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: programs are interrupted at a random moment and go on on another node, with the results of an undisturbed run
# KERNELS: first
# RUN: host --timeout 1200
# Usage: programs.sh [PROGRAM…]		(make check-programs: all, in a root that has them) Without any: those that run in
#					the root of the other tests. SEED decides the moments, INTERRUPTIONS how many.
set -eu

cd "$(dirname "$0")/../.."
. selftests/tests/boots.sh

node_script=programs_node.sh
seed=${SEED:-$(date +%s)}
interruptions=${INTERRUPTIONS:-1}
at_once=3
node_timeout=500
if [ $# = 0 ]; then
	set -- objects tcp-close tcp-loopback tcp-full
	# What depends less on the kernel, and on its CRIU.
	[ "$KERNEL" != "$(awk '!/^#/ && NF { print $1; exit }' selftests/kernels)" ] || set -- "$@" numpy pipeline openmp
else
	at_once=1
	node_kernel=$KERNEL-programs
	node_mem=3072
	node_timeout=3000
fi
echo "seed $seed"
echo "$seed" >"$share/seed"
echo "$at_once" >"$share/at_once"
printf '%s\n' "$@" >"$share/jobs"
# The same programs take a tenth of the time where guests run on the processor itself.
if [ "$(selftests/vm/accel)" = kvm ]; then echo 10; else echo 1; fi >"$share/length"

node=1
while [ "$interruptions" -gt 0 ]; do
	boot node$node interrupt
	node=$((3 - node))
	interruptions=$((interruptions - 1))
done
boot node$node end
