#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: the same as dirty_oracle for the mechanism that needs nothing, hash
# KERNELS: first
# RUN: guest --cpus 4 --disk 256
# Usage: fallback_oracle.sh [SEED]
set -eu
. "${0%/*}/oracle.sh"

oracle hash -m 4 -n 100
oracle hash -m 4 -n 40 -p 16
two_cpus
oracle hash -m 4 -n 60
enough 200
