# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
# For tests on this machine that boot one node after the other with the same storage. Sourced from the top of the tree.

work=$(mktemp -d)
share=$work/share
guest=
mkdir "$share"
trap '[ -z "$guest" ] || kill "$guest"; wait; rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP

# Runs node.sh in a guest until it is done, and then takes the power away.
boot() { # NAME PHASE
	echo "== $*"
	begin=$(date +%s)
	selftests/vm/run "$KERNEL" --share "$share" --pidfile "$work/pid" --console "$work/console" -- \
		/usr/lib/ckpt/tests/node.sh "$@" >"$work/out" 2>"$work/err" &
	guest=$!
	until grep -qx 'node: done' "$work/out" || ! kill -0 "$guest" 2>/dev/null; do sleep 0.2; done
	if ! grep -qx 'node: done' "$work/out"; then
		cat "$work/out" "$work/err"
		guest=
		exit 1
	fi
	kill -9 "$(cat "$work/pid")"
	wait "$guest" || :
	guest=
	cat "$work/out"
	echo "   ($(($(date +%s) - begin)) s)"
	bad='WARNING: |BUG: |Oops|Kernel panic|KASAN'
	if grep -aqE "$bad" "$work/console"; then
		cat "$work/console"
		exit 1
	fi
}
