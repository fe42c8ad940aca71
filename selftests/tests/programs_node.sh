#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Usage: programs_node.sh NAME PHASE	One boot of a node, for programs.sh. Each line of /share/jobs is the name of a program
#					in programs/: a script that takes its length as an argument, works in its own
#					directory, and leaves its results in "result…" and on standard output. What its
#					header says after TCP it has: connections, that are closed, or only listening ones.
#	interrupt	the programs begin or go on, an interruption is announced at a random moment, they are saved
#	end		they go on and end; each was interrupted, and has the results of a run that was not
set -eu
name=$1
phase=$2
store=/share/store
. "${0%/*}/lib.sh"
length=$(cat /share/length)
jobs=/tmp/jobs

older() { # VERSION VERSION
	[ "$1" != "$2" ] && [ "$(printf '%s\n' "$@" | sort -V | head -n 1)" = "$1" ]
}

# Those whose sockets this CRIU cannot save are refused, which other tests look at.
can_move() { # PROGRAM
	criu_is=$(criu --version | sed -n 's/^Version: //p')
	case $(field_of "$1" TCP) in
	'') ;;
	established) ! older "$criu_is" 3.19 && can_save_sockets ;;
	*) can_save_sockets ;;
	esac
}

can_save_sockets() { older "$(uname -r)" 6.16 || ! older "$criu_is" 4.2; }

select_programs() {
	while read -r program; do
		if can_move "$program"; then echo "$program"; else echo "$program: not with CRIU $criu_is on $(uname -r)" >&2; fi
	done </share/jobs >$jobs
}

field_of() { sed -n "s/^# $2: *//p" "$tests/programs/$1" | head -n 1; } # PROGRAM FIELD

each_job() { # FUNCTION: called in the job's directory with $program and $job_dir set
	while read -r program; do
		job_dir=/share/$program
		mkdir -p "$job_dir"
		cd "$job_dir"
		"$1"
	done <"$jobs"
}

# The guest's root is an overlay, whose files CRIU cannot watch with inotify; a node's disk is none.
classes() {
	mkdir -p /var/lib/ckpt
	mount -t tmpfs -o mode=755 tmpfs /var/lib/ckpt
	configure "private = /dev/shm /tmp" "capture = cwd"
	printf '%s\n' "[class close]" "store = $store" "private = /dev/shm /tmp" "tcp = close" "epoch_interval = 1s" \
		"capture = cwd" "checkpoint_interval = 0" >>$config
}

# The server that tcp-close asks is no part of the job.
server_start() {
	grep -qx tcp-close $jobs || return 0
	python3 -c '
import hashlib, socketserver
class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(hashlib.sha256(line).hexdigest().encode() + b"\n")
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("127.0.0.1", 4000), Answer).serve_forever()' &
	await "the server" 60 sh -c 'grep -q 0100007F:0FA0 /proc/net/tcp'
}

job_start() {
	[ ! -e ended ] || return 0
	class=test
	[ "$(field_of "$program" TCP)" != close ] || class=close
	run_start --job "$program" -- "$tests/programs/$program" "$length"
	echo "$run" >/tmp/run.$program
}

# Or have ended already.
jobs_run() {
	running=$(ckptctl status --json | grep -c '"state": "running"')
	for file in /tmp/run.*; do
		! zombie_or_gone "$(cat "$file")" || running=$((running + 1))
	done
	[ "$running" -ge "$(find /tmp -name 'run.*' | wc -l)" ]
}

# Those in $jobs.
jobs_begin() {
	rm -f /tmp/run.*
	ckptd_start
	each_job job_start
}

# It may have ended by itself meanwhile.
job_saved() {
	[ ! -e ended ] || return 0
	status=0
	await_status 170 "$(cat "/tmp/run.$program")" || status=$?
	! grep 'final checkpoint failed' err || status=unsaved
	case $status in
	75) ;;
	0) touch ended ;;
	*) echo "$program: ckptctl run ended with $status" && return 1 ;;
	esac
}

# So few at a time that each begins soon, and none has ended when its moment comes.
interrupt() {
	jobs_begin
	await "the programs to run" 150 jobs_run
	random_below 60
	echo "$(tr '\n' ' ' <"$jobs")are interrupted after $((random / 10)).$((random % 10)) s"
	sleep "$((random / 10)).$((random % 10))"
	imds_say '{"action": "terminate", "action_in": 120}'
	each_job job_saved
	logged "EC2 will terminate this instance"
	sed -n 's/.*ckptd: \(.*: final checkpoint .* committed.*\)/\1/p' $log
	ckptd_stop
	: >$log
	imds_say '{"action": null}'
}

phase_interrupt() {
	imds_start
	classes
	server_start
	seed=$(($(cat /share/seed) + $(cat /share/left 2>/dev/null | wc -l)))
	split -l "$(cat /share/at_once)" $jobs /tmp/group.
	for jobs in /tmp/group.*; do interrupt; done
	jobs=/tmp/jobs
	echo "$name" >>/share/left
}

job_ended() {
	[ ! -e ended ] || return 0
	run=$(cat "/tmp/run.$program")
	run_ends 0 1200
	echo "$program: done at $(uptime_s) s"
}

# One per processor at a time.
references() {
	chmod 755 /share
	mkdir -p /var/tmp/reference
	while read -r program; do
		install -d -o scientist "/var/tmp/reference/$program"
	done <$jobs
	# shellcheck disable=SC2016 # for the inner shell
	xargs -P 2 -I PROGRAM unshare -m -i sh -euc '
		mkdir -p /var/tmp/private/$1
		chmod 1777 /var/tmp/private/$1
		cd /var/tmp/reference/$1
		mount --bind /var/tmp/private/$1 /tmp
		exec setpriv --reuid scientist --regid scientist --init-groups --reset-env "$2/programs/$1" "$3" \
			>out 2>err </dev/null' sh PROGRAM $tests "$length" <$jobs || {
		tail -n 5 /var/tmp/reference/*/err
		return 1
	}
}

job_check() {
	restores=$(grep -c 'goes on from checkpoint' err || :)
	if [ "$restores" = 0 ]; then
		echo "$program was not interrupted: it was too short, or took too long to begin"
		return 1
	fi
	for file in out result*; do cmp "$file" "/var/tmp/reference/$program/$file"; done
	echo "program: $program, $(sh -c "$(field_of "$program" VERSION)"), $(criu --version | sed -n 's/^Version:/CRIU/p'), $(uname -r):" \
		"restored $restores times, same results"
}

phase_end() {
	classes
	server_start
	jobs_begin
	each_job job_ended
	check_no_trace
	references
	each_job job_check
}

node_be "$name"
select_programs
node_phase "$name" "$phase"
