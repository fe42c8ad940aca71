#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: nonsense for every ioctl from several threads: nothing warns, leaks or spoils a later collect
# KERNELS: all
# RUN: guest
# Usage: fuzz.sh [SEED [SECONDS]]
set -eu
modprobe ckpt
seed=${1:-$(date +%s)}
echo "seed $seed"
"${0%/*}/fuzz" -s "$seed" -t "${2:-5}"
rmmod ckpt
