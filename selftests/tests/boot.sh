#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: the guest is a usable node, the programs start, the module loads and unloads again and again
# KERNELS: all
# RUN: guest
# shellcheck disable=SC2016 # for the shells in guests
set -eux

for program in criu python3 strace; do command -v $program; done
for program in ckptd ckptctl ckptbench; do command -v $program; done
su scientist -c 'test "$(id -u)" = 1000 && touch /tmp/mine /dev/shm/mine'
su other -c 'test "$(id -u)" = 1001 && ! rm -f /tmp/mine'
test -e /sys/fs/cgroup/cgroup.procs
mkdir /sys/fs/cgroup/test
echo 1 >/sys/fs/cgroup/test/cgroup.freeze
rmdir /sys/fs/cgroup/test
ping_self=$(python3 -c 'import socket; s = socket.create_server(("localhost", 0)); print(socket.create_connection(s.getsockname()) and "connected")')
test "$ping_self" = connected
test "$(date +%Y)" -ge 2024
criu check

modinfo ckpt
for _ in 1 2 3 4 5 6 7 8 9 10; do
	test -c /dev/ckpt
	rmmod ckpt
	test ! -e /dev/ckpt
	modprobe ckpt
done
