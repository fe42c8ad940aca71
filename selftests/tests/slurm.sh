#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: a Slurm cluster: the README's batch script is interrupted, requeued, and goes on on the other node
# KERNELS: first
# RUN: host --timeout 900
set -eu

cd "$(dirname "$0")/../.."
. selftests/tests/slurm_cluster.sh

batch_script memory --stop stop --arena-mib 8
configure_slurm
tell_story interruption
