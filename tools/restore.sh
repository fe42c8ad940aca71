#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Goes on with a job that `ckptctl export` has written beside this script, with CRIU alone: ckpt is not needed.
#
# Usage: ./restore.sh [--files] [OPTION of criu restore]...	(as root)
#	--files		first puts the captured files of the checkpoint (below files/) back where they belong, over those
#			that are there now
#
# The images here are flattened and plain: `criu restore -D DIR` takes them as they are.  What it needs around it, and
# gets from this script:
#	- a PID namespace where the job's own PIDs, 300 and up, are free, with a /proc of its own, and a mount namespace
#	  with the job's private directories
#	- the files that the job had open for writing, under their paths (job.sh lists them); what was written behind the
#	  checkpoint is cut off
#	- the files that its output goes to, as long as they were; what it printed before the checkpoint is not in them,
#	  they begin with as many zero bytes
# This script ends when the job does, and the job when this script is killed.
set -eu
dir=$(cd "$(dirname "$0")" && pwd)

complain() { echo "restore.sh: $*" >&2; exit 1; }

# --- what job.sh consists of; each is called in turn with a step in $step ---

output() { # BYTES PATH
	[ "$step" = check ] || return 0
	mkdir -p "$(dirname "$2")"
	[ -e "$2" ] || install -m 600 -o "$uid" -g "$gid" /dev/null "$2"
	truncate -s "$1" "$2"
	echo "restore.sh: the job's output goes on in $2" >&2
}

open_file() { # BYTES PATH
	[ "$step" = check ] || return 0
	[ -f "$2" ] || complain "$2, which the job had open for writing, is not there"
	size=$(stat -c %s "$2")
	[ "$size" -ge "$1" ] || complain "$2 has $size bytes, at the checkpoint it had $1"
	[ "$size" -le "$1" ] || truncate -s "$1" "$2"
}

captured() { # PATH
	[ "$step" = files ] || return 0
	cp -a --no-target-directory "$dir/files$1" "$1"
}

private() { # PATH
	[ "$step" = mount ] || return 0
	if [ "$1" = /dev/shm ]; then
		mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs "$1"
		[ ! -d "$dir/files$1" ] || cp -a "$dir/files$1/." "$1"
	elif [ -d "$dir/files$1" ]; then
		mount --no-canonicalize --bind "$dir/files$1" "$1"
	fi
}

run_step() { # STEP
	step=$1
	. "$dir/job.sh"
}

[ "$(id -u)" = 0 ] || complain "must be run as root"
command -v criu >/dev/null || complain "install criu"

# --- the second time, as PID 1 of the namespaces ---

if [ "${1:-}" = --inside ]; then
	shift
	# Relative from here on: a private directory may hide the way here.
	cd "$dir"
	dir=.
	run_step mount
	status=0
	# shellcheck disable=SC2086 # a list of options, from job.sh
	criu restore --no-default-config -D "$dir" -o restore.log -v2 --manage-cgroups=ignore --file-locks \
		${criu_options:-} "$@" || status=$?
	[ "$status" = 0 ] || complain "criu failed: see restore.log beside this script"
	exit 0
fi

if [ "${1:-}" = --files ]; then
	shift
	run_step files
fi
run_step check
exec unshare --pid --mount --fork --kill-child --mount-proc "$0" --inside "$@"
