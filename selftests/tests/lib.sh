# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
# What the tests share that run ckptd and jobs in a guest. Sourced, as root: . /usr/lib/ckpt/tests/lib.sh
#
# A test is a script of cases: `try NAME FUNCTION` runs one and prints "ok NAME" or "not ok NAME" with what the function
# printed and what ckptd logged; `finish` then is the test's status. A case starts with no job and no ckptd and an empty
# store; whatever it leaves running is ended after it. In a case each command must succeed (set -e). With $verbose set,
# also what a case that is ok printed is shown.

tests=/usr/lib/ckpt/tests
workload=$tests/workload
store=${store:-/tmp/store}
job_dir=${job_dir:-/home/scientist/job}       # working directory of jobs; their output is out and err in it
log=/tmp/ckptd.log
config=/etc/ckpt/ckptd.conf
mark="a value with 'quotes' and  blanks"
failed=0

random_below() { # NUMBER: is in $random then; $seed decides
	seed=$(((seed * 1103515245 + 12345) % 2147483648))
	random=$((seed / 65536 % $1))
}

# --- waiting: for an event, and not for ever ---

uptime_s() {
	read -r up _ </proc/uptime
	echo "${up%.*}"
}

await() { # WHAT SECONDS COMMAND…
	await_what=$1
	await_until=$(($(uptime_s) + $2))
	await_pause=2
	shift 2
	while ! "$@" >/dev/null 2>&1; do
		if [ "$(uptime_s)" -gt $await_until ]; then
			echo "waited in vain for: $await_what"
			return 1
		fi
		# In a guest without KVM asking takes as long; what takes long may take somewhat longer.
		sleep 0.$await_pause
		[ $await_pause = 8 ] || await_pause=$((await_pause + 2))
	done
}

# With a mere `! COMMAND` set -e would not end the case.
fails() { ! "$@"; }

ended() { ! kill -0 "$1" 2>/dev/null; } # PID

stopped() { grep -q '^State:[[:space:]]*T' "/proc/$1/status"; } # PID

# The exit status of a child of this shell that must end in time.
await_status() { # SECONDS PID
	await "the end of process $2" "$1" zombie_or_gone "$2" || return 124
	wait "$2"
}

zombie_or_gone() { # PID
	! grep -q '^State:[[:space:]]*[^ZX]' "/proc/$1/status" 2>/dev/null
}

# --- ckptd ---

# An example of README's "Hooks", put where it says that it lies. Prints the lines of the configuration that it names.
readme_hook() { # NAME
	mkdir -p /etc/ckpt/hooks
	awk -v name="hooks/$1" '
		/^### / { hooks = $2 == "Hooks" }
		hooks && /^    / { example = example substr($0, 5) "\n"; next }
		{ if (index(example, name)) printf "%s", example; example = "" }' $tests/README >"/etc/ckpt/hooks/$1"
	chmod 755 "/etc/ckpt/hooks/$1"
	sed -n 2p "/etc/ckpt/hooks/$1" | grep -oE '[a-z_]+ = (root )?[a-z0-9/-]+'
}

configure() { # ["KEY = VALUE" of the class 'test', instead of the ones below]…
	mkdir -p "$(dirname $config)" "$store"
	[ -e /etc/ckpt/key ] || (umask 077 && head -c 32 /dev/urandom >/etc/ckpt/key)
	chmod 1777 "$store"
	{
		echo "[daemon]"
		echo "imds_endpoint = ${imds_endpoint:-off}"
		echo "imds_poll = 1s"
		echo "criu = ${criu:-criu}"
		echo "[class test]"
		printf '%s\n' "$@" "store = $store" "epoch_interval = 1s" "checkpoint_interval = 0" | awk 'NF && !seen[$1]++'
	} >$config
}

# Its pid is in /tmp/ckptd.pid.
ckptd_start() { # [VARIABLE=VALUE]…
	env "$@" ckptd >>$log 2>&1 </dev/null &
	echo $! >/tmp/ckptd.pid
	await "ckptd to answer" 60 ckptd_answers
}

ckptd_answers() { ckptctl status || ended "$(cat /tmp/ckptd.pid)"; }

ckptd_stop() { # [SIGNAL]
	kill "-${1:-TERM}" "$(cat /tmp/ckptd.pid)"
	await "ckptd's end" 60 zombie_or_gone "$(cat /tmp/ckptd.pid)"
	wait "$(cat /tmp/ckptd.pid)" || :
}

ckptd_restart() { # [VARIABLE=VALUE]…
	ckptd_stop
	ckptd_start "$@"
}

# The mock of the metadata service, at $imds_endpoint.
imds_start() { # [OPTION…]
	: >/tmp/imds
	python3 $tests/imds.py "$@" >>/tmp/imds &
	imds=$!
	await "the mock of the metadata service" 60 grep -q ready /tmp/imds
	imds_endpoint=http://127.0.0.1:$(sed 's/.* //' /tmp/imds)
}

imds_say() { # JSON
	python3 -c 'import sys, urllib.request as u
u.urlopen(u.Request(sys.argv[1] + "/control", sys.argv[2].encode(), method="PUT"))' "$imds_endpoint" "$1"
}

logged() { grep -q -- "$1" $log; } # PATTERN

# --- jobs ---

exec_as_scientist() {
	exec setpriv --reuid scientist --regid scientist --init-groups --reset-env env "WORKLOAD_MARK=$mark" "$@"
}

as_scientist() { (exec_as_scientist "$@"); }

# `ckptctl run` as scientist in the background, its output is added to out and err ($errors); its pid is in $run. Its
# class is 'test', or $class.
run_start() { # [OPTION…] -- COMMAND…
	mkdir -p "$job_dir"
	chown scientist: "$job_dir"
	cd "$job_dir"
	exec_as_scientist ckptctl run --class "${class:-test}" "$@" >>out 2>>"${errors:-err}" </dev/null &
	run=$!
}

run_ends() { # STATUS [SECONDS]
	status=0
	await_status "${2:-90}" "$run" || status=$?
	if [ $status != "$1" ]; then
		echo "ckptctl run ended with $status, expected $1"
		return 1
	fi
}

# A number of the one job that there is.
field() { # KEY
	ckptctl status --json | sed -n "s/^ *\"$1\": \([0-9]*\),*\$/\1/p" | head -n 1
}

field_is_least() { # KEY NUMBER
	found=$(field "$1")
	[ -n "$found" ] && [ "$found" -ge "$2" ]
}

job_state() { ckptctl status --json | sed -n 's/^ *"state": "\(.*\)".*/\1/p' | head -n 1; }

job_runs() { [ "$(job_state)" = running ]; }

steps() { # [FILE]: how many steps its output tells
	grep -c '^step ' "${1:-$job_dir/out}"
}

steps_are_least() { [ "$(steps "$2")" -ge "$1" ]; } # NUMBER FILE

progress() { # NUMBER: that many further steps
	await "$1 more steps" 90 steps_are_least $(($(steps "$job_dir/out") + $1)) "$job_dir/out"
}

# Steps 1 to N once each and in order, and then "ok": nothing lost, nothing doubled.
check_output() { # FILE
	awk '
		/^step / { if ($2 != ++step) { print "line " NR ": expected step " step ", found " $0; exit 1 } next }
		/^ok /   { if (ok++) { print "line " NR ": a second " $0; exit 1 } next }
		{ print "line " NR ": " $0; exit 1 }
		END { if (!ok) print "no ok after step " step; exit !ok }
	' "$1"
}

# The same as if it had never been interrupted.
check_digest() { # FILE MODE [OPTION…]
	found=$(tail -n 1 "$1")
	count=$(steps "$1")
	shift
	install -d -o scientist /tmp/reference
	expected=$(cd /tmp/reference && as_scientist "$workload" "$@" --steps "$count" --pause-ms 0 | tail -n 1)
	if [ "$found" != "$expected" ]; then
		echo "uninterrupted: $expected"
		echo "found:         $found"
		return 1
	fi
}

# Of a job that has ended.
check_no_trace() {
	await "ckptd to forget the job" 30 no_jobs
	left=$(find "$store" -mindepth 1; find /var/lib/ckpt/jobs /sys/fs/cgroup -mindepth 1 -name '*100[01]-*')
	if [ -n "$left" ]; then
		echo "left behind: $left"
		return 1
	fi
}

no_jobs() { ckptctl status --json | grep -q '"jobs": \[\]'; }

# The job of tests that look at something beside it: started and seen by two epochs, and then saved, restored, ended.
# It is the judge: whatever was lost meanwhile it finds in its memory.
memory_job_start() {
	run_start -- "$workload" memory --stop stop --arena-mib 8
	await "two epochs" 60 field_is_least epochs 2
}

memory_job_finish() {
	ckptctl drain
	run_ends 75
	ckptd_restart
	run_start -- "$workload" memory --stop stop --arena-mib 8
	await "the restore" 60 grep -q "goes on from checkpoint" err
	progress 3
	touch stop
	run_ends 0
	check_output out
	check_digest out memory --arena-mib 8
}

# Without the module.
next_best() { mechanism_works procfs && echo procfs || echo hash; }
mechanism_works() { ckptctl doctor | grep -q "^ok .*mechanism $1 "; } # MECHANISM

# --- a node of several, that come one after the other: /share is the storage that they share ---

node_be() { # NAME
	echo "$1" >/proc/sys/kernel/hostname
	[ -e /share/key ] || (umask 077 && head -c 32 /dev/urandom >/share/key)
	mkdir -p /etc/ckpt
	install -m 600 /share/key /etc/ckpt/key
}

# What a boot is for; ends with standing still until the power goes. each_job is the script's own.
node_phase() { # NAME PHASE
	set +e
	(
		set -e
		"phase_$2"
	) >/tmp/case 2>&1
	status=$?
	if [ $status != 0 ]; then
		each_job tell
		echo "node: $2 failed on $1"
		exit 1
	fi
	cat /tmp/case
	echo "node: done"
	exec sleep 1000
}

# --- for ckptbench ladder ---

# ckptd here, and another node as far as it can tell: a name, a /run/ckpt and a /var/lib/ckpt of its own. /tmp/other runs a
# line there, /tmp/off and /tmp/on take ckptd away from here and bring it back, and note it in /tmp/switched.
ladder_begin() {
	mkdir -p /run/ckpt /var/lib/ckpt "$job_dir"
	cd "$job_dir"
	ckptd_start
	unshare --mount --uts --fork sh -c '
		hostname other
		mount -t tmpfs tmpfs /run/ckpt
		mount -t tmpfs tmpfs /var/lib/ckpt
		exec ckptd >>/tmp/other.log 2>&1' &
	other=$!
	cat >/tmp/other <<-EOF
		#!/bin/sh
		exec nsenter --target $other --mount --uts --wd="\$PWD" sh -c "\$1"
	EOF
	cat >/tmp/off <<-EOF
		#!/bin/sh
		. $tests/lib.sh
		kill \$(cat /tmp/ckptd.pid)
		await "ckptd's end" 60 zombie_or_gone \$(cat /tmp/ckptd.pid)
		rmmod ckpt
		echo off >>/tmp/switched
	EOF
	cat >/tmp/on <<-EOF
		#!/bin/sh
		. $tests/lib.sh
		modprobe ckpt
		ckptd_start
		echo on >>/tmp/switched
	EOF
	chmod 755 /tmp/other /tmp/off /tmp/on
	await "ckptd on the other node" 60 /tmp/other "ckptctl status"
}

# --- cases ---

# What a case may have left: jobs, which outlive ckptd, and ckptd.
clean_up() {
	for cgroup in $(find /sys/fs/cgroup -mindepth 1 -type d -name '*100[01]-*'); do
		while read -r pid; do echo "$pid"; done <"$cgroup/cgroup.procs" | xargs -r kill -9 2>/dev/null
		echo 0 >"$cgroup/cgroup.freeze"
	done
	[ ! -e /tmp/ckptd.pid ] || kill -9 "$(cat /tmp/ckptd.pid)" 2>/dev/null || :
	for pid in $(pgrep -x 'ckptctl|ckpt-init|ckptd-criu|ckpt-pages|ckpt-holder'); do kill -9 "$pid" || :; done
	for cgroup in $(find /sys/fs/cgroup -mindepth 1 -type d -name '*100[01]-*'); do
		await "the cgroup's end" 10 rmdir "$cgroup"
	done
	cd /
	for mounted in "$store" /var/lib/ckpt; do
		! mountpoint -q "$mounted" || umount -l "$mounted"
	done
	rm -rf "$store" "$job_dir" /var/lib/ckpt/jobs /run/ckpt /tmp/ckptd.pid $log
}

try() { # NAME FUNCTION
	clean_up >/dev/null 2>&1
	try_begin=$(uptime_s)
	# Not in a condition: there set -e would not hold.
	set +e
	(
		set -e
		"$2"
	) >/tmp/case 2>&1
	try_status=$?
	set -e
	if [ $try_status = 0 ]; then
		[ -z "${verbose:-}" ] || cat /tmp/case
		echo "ok $1 ($(($(uptime_s) - try_begin)) s)"
	else
		failed=1
		echo "not ok $1"
		tell | sed 's/^/    /'
	fi
}

tell() {
	cat /tmp/case
	[ ! -e /tmp/ckptd.pid ] || kill -CONT "$(cat /tmp/ckptd.pid)" 2>/dev/null || :
	for file in "$job_dir/err" "$log"; do
		[ ! -s "$file" ] || { echo "$file:"; tail -n 40 "$file"; }
	done
	[ ! -s "$job_dir/out" ] || { echo "out ends with:"; tail -n 3 "$job_dir/out"; }
	ckptctl status --json 2>&1
}

finish() {
	clean_up >/dev/null 2>&1
	exit $failed
}
