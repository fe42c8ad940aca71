#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: nodes whose CPUs can do less, or have more registers, are refused to a job, which goes on on one like its own
# KERNELS: first
# RUN: host --timeout 600
set -eu

cd "$(dirname "$0")/../.."
. selftests/tests/boots.sh

echo "memory --arena-mib 4" >"$share/jobs"

refuses() { # NODE WHY
	boot "$1" refused >"$work/said"
	cat "$work/said"
	grep -q "$2" "$work/said"
}

# Without pku there is less that XSAVE stores.
node_cpu=max,erms=off,pku=off
boot node1 interrupt
node_cpu=max,erms=off,pku=off,adx=off
refuses node2 "this node's CPU lacks what the job may rely on since it ran on node1: adx; restore it"
node_cpu=max,erms=off
refuses node3 "this node's CPU differs too much from the one that the job ran on, says criu: "
node_cpu=max,erms=off,pku=off
boot node2 end
