#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: two nodes and one job: the second is refused as long as the first has it; one that lost it harms nothing
# KERNELS: first
# RUN: host --timeout 900
# node1 is stopped like a machine that its host does not run, while node2 takes the job over.
set -eu

cd "$(dirname "$0")/../.."
. selftests/tests/cluster.sh

told() { # FILE: waits until a guest has made it
	until [ -e "$share/$1" ]; do
		for pid in $guests; do
			kill -0 "$pid" 2>/dev/null || { tell; exit 1; }
		done
		sleep 0.2
	done
}

boot 1 fencing_node.sh first
first=$guest
boot 2 fencing_node.sh second
second=$guest
told ready
# Between two writes: one that QEMU's file server has already taken it does when it goes on, whatever the lease says.
size=$(stat -c %s "$share/job/out")
while [ "$(stat -c %s "$share/job/out")" = "$size" ]; do kill -0 "$first"; done
kill -STOP "$(cat "$work/pid.1")"
touch "$share/stopped"
told taken
kill -CONT "$(cat "$work/pid.1")"
status=0
wait "$first" || status=$?
touch "$share/lost"
wait "$second" || status=$?
if [ $status = 0 ]; then cat "$work/node1" "$work/node2"; else tell; fi
exit $status
