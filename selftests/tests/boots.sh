# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
# For tests on this machine that boot one node after the other with the same storage. Sourced from the top of the tree.

work=$(mktemp -d)
share=$work/share
guest=
mkdir "$share"
trap '[ -z "$guest" ] || kill "$guest" 2>/dev/null || :; wait; rm -rf "$work"' EXIT
trap 'tell; exit 143' TERM INT HUP

# What the guest that runs said so far; its kernel's log ends with what it hangs in, if it does.
tell() {
	[ ! -e "$work/out" ] || cat "$work/out" "$work/err"
	[ ! -e "$work/console" ] || tail -n 20 "$work/console"
}

# Runs $node_script in a guest (of $node_kernel, with $node_mem MiB and $node_cpu) until it is done, and then takes the power away.
boot() { # NAME PHASE
	echo "== $*"
	begin=$(date +%s)
	# The one before is done, this one is not.
	rm -f "$work/out" "$work/err" "$work/console"
	touch "$work/out" "$work/err"
	selftests/vm/run "${node_kernel:-$KERNEL}" --mem "${node_mem:-1024}" ${node_cpu:+--cpu "$node_cpu"} --timeout "${node_timeout:-300}" --share "$share" --pidfile "$work/pid" --console "$work/console" -- \
		"/usr/lib/ckpt/tests/${node_script:-node.sh}" "$@" >"$work/out" 2>"$work/err" &
	guest=$!
	until grep -qx 'node: done' "$work/out" || ! kill -0 "$guest" 2>/dev/null; do sleep 0.2; done
	if ! grep -qx 'node: done' "$work/out"; then
		tell
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
