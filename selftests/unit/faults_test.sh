#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The fault points in the source are those in the list in faults.c: a daemon with an armed one ends at one that is not there.
set -eu
work=$(mktemp -d -t ckpt-faults.XXXXXX)
trap 'rm -rf "$work"' EXIT
cat daemon/*.c | grep -oE '\b(fault|try_call)\("[a-z_.]+"' | cut -d'"' -f2 | sort -u >"$work/used"
sed -n '/^static const char \*const points\[\]/,/^}/s/^	"\(.*\)",$/\1/p' daemon/faults.c | sort >"$work/listed"
[ "$(wc -l <"$work/used")" -gt 30 ]
diff "$work/listed" "$work/used"
