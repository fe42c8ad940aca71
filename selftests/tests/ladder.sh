#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Usage: ladder.sh [REPEAT [STEPS]]	(make ladder) What LAMMPS costs in the six steps of ckptbench ladder, with epochs of 60 s,
#					between two nodes that are one guest.
set -eu
. "${0%/*}/lib.sh"
repeat=${1:-15}
steps=${2:-300}

modprobe ckpt
configure "epoch_interval = 60s"
ladder_begin
# Nothing to print: it would be how long it took.
sed "s/^run .*/run $steps/" /usr/share/lammps/examples/kim/in.lammps.melt >in.melt
OMPI_MCA_ess_singleton_isolated=1 ckptbench ladder --class test --repeat "$repeat" --node exec:/tmp/other --off /tmp/off \
	--on /tmp/on -- lmp -in in.melt -v x 2 -v y 2 -v z 1 -log none -screen none
no_jobs
