#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: no write is missed by collecting a job that runs and changes its mappings, small pages and huge ones
# KERNELS: all
# RUN: guest
set -eu
tests=$(dirname "$0")
modprobe ckpt
seed=$(date +%s)
echo "seed $seed"
for events in '' d u m p w wu f fwu c s dumpwfcors; do
	"$tests/dirty_oracle" -n 48 -s "$seed" -e "$events"
done
"$tests/dirty_oracle" -n 240 -s "$seed"
