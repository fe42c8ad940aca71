#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: the ioctls check what they are given, and fail as the manual says
# KERNELS: all
# RUN: guest
set -eu
modprobe ckpt
"$(dirname "$0")/abi"
