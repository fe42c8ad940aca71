#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: a node that dies without a notice costs what was done since the last checkpoint, and nothing else
# KERNELS: first
# RUN: host --timeout 600
set -eu

cd "$(dirname "$0")/../.."
. selftests/tests/boots.sh

cat >"$share/jobs" <<'JOBS'
memory --arena-mib 16
files
JOBS
touch "$share/merged"
boot node1 commit
boot node2 commit
boot node1 end
