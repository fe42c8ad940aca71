#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: two nodes and one job: the second is refused as long as the first has it; one that lost it harms nothing
# KERNELS: first
# RUN: host --timeout 900
# node1 is stopped like a machine that its host does not run, while node2 takes the job over.
set -eu

cd "$(dirname "$0")/../.."
work=$(mktemp -d)
share=$work/share
guests=
# shellcheck disable=SC2086 # a list of process ids
trap 'kill $guests 2>/dev/null || :; wait; rm -rf "$work"' EXIT
trap 'tell; exit 143' TERM INT HUP

tell() {
	for file in "$work"/node*; do
		echo "--- ${file##*/} ends with:"
		tail -n 40 "$file"
	done
}

boot() { # ADDRESS PART
	address=$1
	selftests/vm/run "$KERNEL" --net "fencing$$:$address" --mem 768 --share "$share" --pidfile "$work/pid.$address" \
		--console "$work/console.$address" --timeout 800 -- \
		/usr/lib/ckpt/tests/fencing_node.sh "$2" >"$work/node$address" 2>&1 &
	guests="$guests $!"
	last=$!
}

told() { # FILE: waits until a guest has made it
	until [ -e "$share/$1" ]; do
		for guest in $guests; do
			kill -0 "$guest" 2>/dev/null || { tell; exit 1; }
		done
		sleep 0.2
	done
}

mkdir "$share"
selftests/vm/build "$KERNEL" >/dev/null
(umask 077 && head -c 32 /dev/urandom >"$share/key")
boot 1 first
first=$last
boot 2 second
second=$last
told ready
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
