#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: jobs live through interruptions, each on another node than before: five, on further kernels two
# KERNELS: criu
# FURTHER: node2 node1
# RUN: host --timeout 1200
set -eu

cd "$(dirname "$0")/../.."
. selftests/tests/boots.sh

cat >"$share/jobs" <<'JOBS'
memory --arena-mib 8
tree --arena-mib 4
JOBS
for node in ${*:-node1 node2 node1 node2 node1}; do
	boot $node interrupt
done
boot node2 end
