#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Bash completes exactly the commands that --help lists and the source has, and exactly the options that getopt() takes.
set -eu

. packaging/bash-completion/ckptctl
PATH=$PWD/$BUILD:$PATH
failed=0

sorted() { [ $# = 0 ] || printf '%s\n' "$@" | sort | tr '\n' ' '; }

# As bash calls it, for a line that ends with its last word.
complete_line() { # WORD…
	COMP_WORDS=("$@")
	COMP_CWORD=$(($# - 1))
	_ckpt "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
}

expect() { # LIST WORD…
	local expected found
	# shellcheck disable=SC2086 # a list
	expected=$(sorted $1)
	shift
	complete_line "$@"
	found=$(sorted "${COMPREPLY[@]}")
	if [ "$found" != "$expected" ]; then
		echo "'$*' is completed with '$found', expected '$expected'"
		failed=1
	fi
}

listed() { "$1" --help | awk '/^  [a-z]/ { print $1 }' | tr '\n' ' '; }

# The names in its table of commands.
table() { sed -nE 's/^	\{ "([a-z]+)", [a-z_]+, ".*/\1/p' "tools/$1.c" | tr '\n' ' '; }

# All options begin with what is empty, so getopt() names them.
expect_options() { # PROGRAM [COMMAND]
	local said possible
	complete_line "$@" -
	possible=$(sorted "${COMPREPLY[@]}")
	said=$("$@" --= 2>&1 </dev/null) || :
	said=$(grep -m 1 option <<<"$said" | grep -oE -- "'--[a-z-]+'" | tr -d "'" | sort | tr '\n' ' ')
	if [ "$said" != "$possible" ]; then
		echo "'$* --' is completed with ${possible:-nothing}, getopt says: ${said:-nothing}"
		failed=1
	fi
}

for program in ckptctl ckptbench; do
	commands=$(listed $program)
	[ "$(wc -w <<<"$commands")" -ge 4 ]
	[ "$commands" = "$(table $program)" ]
	expect "$commands--help --version" $program ''
	for command in $commands; do expect_options $program "$command"; done
done
expect_options ckptd
expect status ckptctl stat
expect "" ckptctl nothing
expect "list new use remove" ckptctl key ''
expect /usr ckptctl export --store /us
expect selftests/kernels ckptd --config selftests/kern

# Names that only the node knows.
# shellcheck disable=SC2317 # _ckpt calls them
_ckpt_classes() { echo long short; }
# shellcheck disable=SC2317
_ckpt_jobs() { echo 1000-flow 1000-heat; }
expect "long short" ckptctl run --class ''
expect short ckptctl config sh
expect "1000-flow 1000-heat" ckptctl checkpoint ''
expect 1000-heat ckptctl verify --job 1000-h
exit $failed
