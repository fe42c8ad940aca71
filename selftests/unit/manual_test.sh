#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The manual pages are clean for mandoc and for groff, and tell all that the programs and the header tell.
set -eu

failed=0
pages=$BUILD/man
text=$(mktemp)
trap 'rm -f "$text"' EXIT

has() { # WORD…: the rendered page in $text has these words in a row
	tr -s ' \n' ' ' <"$text" | grep -qF -- "$*" || {
		echo "$page lacks: $*"
		failed=1
	}
}

check_page() { # PAGE
	page=$1
	mandoc -T lint -W warning "$pages/$page" || failed=1
	warnings=$(man --warnings -E UTF-8 -l -Tutf8 -Z "$pages/$page" 2>&1 >/dev/null)
	if [ -n "$warnings" ]; then
		echo "$page: $warnings"
		failed=1
	fi
	mandoc -T utf8 -O width=100 "$pages/$page" | col -b >"$text"
	! grep -n '^ *@' "$text" || failed=1
}

check_options() { # PROGRAM [COMMAND]: those at the beginnings of lines, and what they want
	"$BUILD/$1" ${2:+"$2"} --help | sed -nE 's/^ +((-[a-zA-Z], )?--[a-z-]+( [A-Z]+)?).*/\1/p' >"$text.options"
	while read -r option; do has "$option"; done <"$text.options"
	rm "$text.options"
}

check_commands() { # PROGRAM
	for command in $("$BUILD/$1" --help | awk '/^  [a-z]/ { print $1 }'); do
		has "$1 $command"
		check_options "$1" "$command"
	done
}

check_page ckptctl.1
check_commands ckptctl
check_page ckptbench.1
check_commands ckptbench
check_page ckptd.8
check_options ckptd
metrics=$("$BUILD/ckptd" --help-metrics | sed -n 's/^  \([a-z_]*\) .*/\1/p')
[ "$(echo "$metrics" | wc -l)" -gt 20 ]
for metric in $metrics; do has "$metric"; done

check_page ckptd.conf.5
keys=$("$BUILD/ckptd" --help-config | sed -n 's/^\([a-z_]*\) = .*/\1/p')
[ "$(echo "$keys" | wc -l)" -gt 20 ]
for key in $keys; do has "$key ="; done

check_page ckpt.4
names=$(sed -nE '/_TYPE/d;s/^#define (CKPT_[A-Z_]+).*/\1/p;s/^struct (ckpt_[a-z]+) .*/\1/p' uapi/linux/ckpt.h)
for name in $names; do has "$name"; done
awk '/^#include/,/^\.Ed/' "$pages/ckpt.4" | sed '/^\.Ed/d;s/\\e/\\/g' >"$text"
grep -q 'int main' "$text"
gcc -std=gnu11 -Wall -Wextra -Werror -Iuapi -fsyntax-only -x c "$text" || failed=1

[ "$(find "$pages" -name '*.[1-9]' | wc -l)" = 5 ]
exit $failed
