# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
# For tests on this machine with several guests at a time on a network of their own. Sourced from the top of the tree.

work=$(mktemp -d)
share=$work/share
guests=
mkdir "$share"
# shellcheck disable=SC2086 # a list of process ids
trap 'kill $guests 2>/dev/null || :; wait; rm -rf "$work"' EXIT
trap 'tell; exit 143' TERM INT HUP

# What guests said, and left in /share.
tell() {
	for file in "$work"/node* "$share"/*.log "$share"/*.out; do
		[ ! -s "$file" ] || { echo "--- ${file##*/} ends with:"; tail -n 40 "$file"; }
	done
}

# Its process is $guest, QEMU's is in $work/pid.ADDRESS, what it says in $work/nodeADDRESS.
boot() { # ADDRESS SCRIPT [ARGUMENT…]
	address=$1
	script=$2
	shift 2
	selftests/vm/run "$KERNEL" --net "cluster$$:$address" --mem 768 --share "$share" --pidfile "$work/pid.$address" \
		--console "$work/console.$address" --timeout "${guest_timeout:-800}" -- "/usr/lib/ckpt/tests/$script" "$@" \
		>"$work/node$address" 2>&1 &
	guest=$!
	guests="$guests $guest"
}

selftests/vm/build "$KERNEL" >/dev/null
# The cluster's key.
(umask 077 && head -c 32 /dev/urandom >"$share/key")
