#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: the same as dirty_oracle for procfs, which needs no module; where that does not work, for hash
# KERNELS: criu
# RUN: guest --cpus 4 --disk 256
# Usage: fallback_oracle.sh [SEED]
set -eu
. "${0%/*}/oracle.sh"

if "${0%/*}/dirty_oracle" -M procfs -m 2 -n 1; then
	oracle procfs -n 100
	oracle procfs -m 5 -n 40 -p 20
	two_cpus
	oracle procfs -n 60
else
	oracle hash -m 4 -n 100
	oracle hash -m 4 -n 40 -p 16
	two_cpus
	oracle hash -m 4 -n 60
fi
enough 200
