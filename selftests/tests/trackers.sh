#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: each tracking mechanism of the daemon reports what was written, a new program after exec, and the end; looks
# KERNELS: all
# RUN: guest
set -eu
tests=$(dirname "$0")
! grep -q "^ckpt " /proc/modules || rmmod ckpt
"$tests/trackers" without
modprobe ckpt
"$tests/trackers"
"$tests/look"
