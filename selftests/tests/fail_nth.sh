#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: each allocation of each ioctl fails in turn: the state is as documented, and nothing is left behind
# KERNELS: all
# RUN: guest
set -eu
modprobe ckpt
modprobe ckpt_fail
"${0%/*}/fail_nth"
rmmod ckpt_fail
rmmod ckpt
