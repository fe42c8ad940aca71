#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: each kind of mapping is reported with exact regions and categories, with and without swap
# KERNELS: all
# RUN: guest --disk 64
set -eu
tests=$(dirname "$0")
modprobe ckpt
"$tests/regions"
mkswap /dev/vda >/dev/null
swapon /dev/vda
"$tests/regions"
