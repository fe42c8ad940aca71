#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: whatever fails or dies beside a job, at its worst moment: the job runs on, and its result is right
# KERNELS: first
# RUN: guest --timeout 1200
# Usage: faults.sh [CASE…]	(all)
set -eu
. "${0%/*}/lib.sh"
criu=$tests/fake-criu
small="--arena-mib 4"

# --- one job, named j ---

# Notes of an earlier run go: those behind the checkpoint would be cut off, see run.c.
start() { # [OPTION…]
	[ ! -e "$job_dir/err" ] || : >"$job_dir/err"
	# shellcheck disable=SC2086 # a list of options
	run_start --job j -- "$workload" memory --stop stop $small "$@"
}

goes_on() {
	await "the restore" 180 grep -q 'goes on from checkpoint' "$job_dir/err"
	progress 3
}

end() {
	touch stop
	run_ends 0
	check_output out
	# shellcheck disable=SC2086
	check_digest out memory $small
	check_no_trace
}

checkpoint_fails() { # PATTERN: of what it says
	if ckptctl checkpoint 1000-j >/tmp/said 2>&1; then
		echo "a checkpoint is committed, expected: $1"
		return 1
	fi
	cat /tmp/said
	grep -q -- "$1" /tmp/said
}

epoch() { await "an epoch" 60 field_is_least epochs 1; }

frozen() { grep -q '^frozen 1' /sys/fs/cgroup/ckpt-1000-j/cgroup.events; }

# --- CRIU ---

case_criu_fails() {
	configure "criu_timeout = 10s"
	ckptd_start
	start
	epoch
	echo fail >/tmp/criu-fault
	checkpoint_fails 'criu cannot save the job: .*no luck today'
	progress 2
	ckptctl status | grep 'problem: the last checkpoint failed: .*no luck today'
	mv /tmp/criu /tmp/criu-gone
	checkpoint_fails '/tmp/criu cannot be run'
	mv /tmp/criu-gone /tmp/criu
	progress 2
	echo hang >/tmp/criu-fault
	checkpoint_fails 'criu was silent for 10 s (criu_timeout) and was killed'
	progress 2
	rm /tmp/criu-fault
	ckptctl checkpoint 1000-j
	ckptctl status | grep problem: && return 1

	# Killed while it had hold of the job.
	echo crash >/tmp/criu-fault
	checkpoint_fails .
	run_ends 75
	grep 'criu was killed by signal 9.*goes on from its last checkpoint' err
	echo fail >/tmp/criu-fault
	start
	run_ends 125
	grep 'criu cannot restore the job: .*no luck today' err
	echo hold >/tmp/criu-fault
	start
	goes_on
	checkpoint_fails .
	run_ends 75
	grep 'criu_timeout.*goes on from its last checkpoint' err
	rm /tmp/criu-fault
	start
	goes_on
	end
}

# One that must go back, and has nothing to go back to.
case_criu_crashes_first() {
	configure
	ckptd_start
	start
	epoch
	echo crash >/tmp/criu-fault
	checkpoint_fails .
	run_ends 75
	grep 'criu was killed by signal 9.*begins anew' err
	rm /tmp/criu-fault
	rm out
	start
	progress 3
	grep 'goes on from' err && return 1
	end
}

# A checkpoint that stands still with the job frozen, before criu begins; its client's pid is in $saving.
save_paused() {
	configure
	ckptd_start
	start
	epoch
	echo pause >/tmp/criu-fault
	ckptctl checkpoint 1000-j >/tmp/said 2>&1 &
	saving=$!
	await "criu" 60 test -e /tmp/criu-waits
}

case_killed_frozen() {
	save_paused
	frozen
	kill -9 "$(field pid)"
	rm /tmp/criu-fault
	run_ends 137
	cat /tmp/said
	check_no_trace
}

# Something else lets the job run on while it is saved, so what was saved is not of one moment.
case_thawed() {
	save_paused
	echo 0 >/sys/fs/cgroup/ckpt-1000-j/cgroup.freeze
	rm /tmp/criu-fault
	if await_status 60 $saving; then return 1; fi
	cat /tmp/said
	grep "something else thawed the job's cgroup" /tmp/said
	progress 2
	ckptctl checkpoint 1000-j
	end
}

# Between criu's start and the freeze something is sent that the other end does not take: that criu was started for
# connections in which nothing moves, and another one takes its place. The job stands still meanwhile.
case_sent_meanwhile() {
	criu=criu configure "tcp = close"
	python3 -c '
import socket
server = socket.create_server(("127.0.0.1", 4002))
open("/tmp/silent-up", "w")
peer = server.accept()
server.accept()' &
	server=$!
	await "a server that reads nothing" 60 test -e /tmp/silent-up
	ckptd_start CKPT_FAULT=checkpoint.prepared=stop
	run_start --job j -- python3 -uc '
import os, socket, time
peer = socket.create_connection(("127.0.0.1", 4002))
peer.setblocking(False)
step = 0
while not os.path.exists("stop"):
    step += 1
    print("step", step)
    if os.path.exists("send") and not os.path.exists("sent"):
        try:
            while True:
                peer.send(bytes(65536))
        except BlockingIOError:
            open("sent", "w")
    time.sleep(0.1)
print("ok")'
	epoch
	ckptctl checkpoint 1000-j >/tmp/said 2>&1 &
	saving=$!
	await "criu to stand ready" 60 stopped "$(cat /tmp/ckptd.pid)"
	touch send
	await "what is sent" 60 test -e sent
	kill -CONT "$(cat /tmp/ckptd.pid)"
	await_status 60 $saving || { cat /tmp/said && return 1; }
	touch stop
	run_ends 0
	kill $server
}

# Without the mark that keeps init from thawing the job: the final checkpoint is committed all the same.
case_no_mark() {
	configure
	ckptd_start
	start
	epoch
	mkdir /var/lib/ckpt/jobs/1000-j/committing
	ckptctl drain
	run_ends 75
	logged 'cannot make .*/committing: Is a directory'
	ckptd_restart
	start
	goes_on
	end
}

# --- a restore that fails midway: it can be tried again ---

restore_fails() { # PATTERN
	: >err
	start
	run_ends 125 200
	grep -- "$1" err
	await "ckptd to forget the job" 30 no_jobs
	test -z "$(find /var/lib/ckpt/jobs /sys/fs/cgroup -mindepth 1 -name '*1000-j*')"
}

case_restore_fails() {
	configure "criu_timeout = 5s"
	ckptd_start
	start
	epoch
	ckptctl drain
	run_ends 75
	sha256sum "$store/1000-j/"* >/tmp/before

	echo "- no room for the images: the store is as it was"
	ckptd_stop
	mount -t tmpfs -o size=512k tmpfs /var/lib/ckpt
	ckptd_start
	restore_fails 'cannot write.*No space left'
	sha256sum "$store/1000-j/"* | diff /tmp/before -
	ckptd_stop
	umount /var/lib/ckpt

	echo "- files cannot be put back, criu does not come back"
	ckptd_start CKPT_FAULT=restore.files=EIO
	restore_fails .
	ckptd_restart
	echo stuck >/tmp/criu-fault
	restore_fails 'criu_timeout'
	echo mute >/tmp/criu-fault
	restore_fails "cpuinfo check' does not say whether this node's CPU fits: it gave no reason"
	rm /tmp/criu-fault

	echo "- all that had failed has left what there is to restore"
	for object in manifest seg; do
		grep "/$object-" /tmp/before | sha256sum -c --quiet
	done
	start
	goes_on
	end
}

# --- what cannot be saved ---

hold_start() { # NAME COMMAND…
	name=$1
	shift
	job_dir=/home/scientist/$name run_start --job "$name" -- "$@"
	runs="$runs $run"
}

case_unsaveable() {
	configure "ghost_limit = 1M"
	ckptd_start
	runs=
	for kind in io_uring userfaultfd; do
		hold_start $kind "$workload" memory --stop stop $small --hold $kind
	done
	python3 -c '
import socket
server = socket.socket(socket.AF_UNIX)
server.bind("/tmp/service")
server.listen()
other = socket.create_server(("127.0.0.1", 4001))
open("/tmp/service-up", "w")
peers = [other.accept()] + [server.accept() for _ in range(10)]' &
	await "a service" 60 test -e /tmp/service-up
	chmod 777 /tmp/service
	hold_start tcp python3 -uc '
import os, socket, time
peer = socket.create_connection(("127.0.0.1", 4001))
step = 0
while not os.path.exists("stop"):
    step += 1
    print("step", step)
    if peer and os.path.exists("release"):
        peer.close()
        peer = None
    time.sleep(0.1)
print("ok")'
	hold_start pair python3 -uc '
import os, socket, time
server = socket.create_server(("localhost", 0))
pair = [socket.create_connection(server.getsockname()), server.accept()[0]]
server.close()
step = 0
while not os.path.exists("stop"):
    step += 1
    print("step", step)
    if pair and os.path.exists("release"):
        [end.close() for end in pair]
        pair = None
    time.sleep(0.1)
print("ok")'
	hold_start service python3 -uc '
import os, socket, time
peer = socket.socket(socket.AF_UNIX)
peer.connect("/tmp/service")
step = 0
while not os.path.exists("stop"):
    step += 1
    print("step", step)
    if peer and os.path.exists("release"):
        peer.close()
        peer = None
    time.sleep(0.1)
print("ok")'
	hold_start orphan python3 -uc '
import os, signal, time
pids, told = os.pipe()
if os.fork() == 0:
    pid = os.fork()
    if pid:
        os.write(told, str(pid).encode())
        os._exit(0)
    os.setsid()
    signal.pause()
os.wait()
orphan = int(os.read(pids, 100))
step = 0
while not os.path.exists("stop"):
    step += 1
    print("step", step)
    if orphan and os.path.exists("release"):
        os.kill(orphan, 9)
        orphan = None
    time.sleep(0.1)
print("ok")'
	# shellcheck disable=SC2016 # for the job's shell
	hold_start adopted sh -c 'python3 -uc "$0"; exit $?' '
import ctypes, os, signal, time
ctypes.CDLL(None).prctl(36, 1) # PR_SET_CHILD_SUBREAPER
pids, told = os.pipe()
if os.fork() == 0:
    os.setsid()
    pid = os.fork()
    if pid:
        os.write(told, str(pid).encode())
        os._exit(0)
    signal.pause()
os.wait()
orphan = int(os.read(pids, 100))
step = 0
while not os.path.exists("stop"):
    step += 1
    print("step", step)
    if orphan and os.path.exists("release"):
        os.kill(orphan, 9)
        os.wait()
        orphan = None
    time.sleep(0.1)
print("ok")'
	hold_start semaphore python3 -uc '
import ctypes, os, time
counter, semaphore = [ctypes.CDLL(None).eventfd(3, flags) for flags in (0, 1)]
step = 0
while not os.path.exists("stop"):
    step += 1
    if semaphore:
        assert os.read(semaphore, 8) == (1).to_bytes(8, "little")
        os.write(semaphore, (1).to_bytes(8, "little"))
    assert os.read(counter, 8) == (3).to_bytes(8, "little")
    os.write(counter, (3).to_bytes(8, "little"))
    print("step", step)
    if semaphore and os.path.exists("release"):
        os.close(semaphore)
        semaphore = None
    time.sleep(0.1)
print("ok")'
	# shellcheck disable=SC2016 # for the job's shell
	hold_start deleted sh -c '
		head -c 2M /dev/zero >big
		exec 3<big
		rm big
		until [ -e stop ]; do
			step=$((step + 1))
			echo "step $step"
			[ ! -e release ] || exec 3<&-
			sleep 0.1
		done
		echo ok'
	check_kind io_uring 'process [0-9]* has an io_uring (descriptor 3, .*), which CRIU cannot save: let'
	check_kind userfaultfd 'process [0-9]* has a userfaultfd (descriptor 3, .*), which CRIU cannot save: let'
	check_kind tcp 'it has a TCP connection, 127.0.0.1:[0-9]* to 127.0.0.1:4001, whose other end is not'
	case $(criu --version) in
	*3.1[78]*) check_kind pair 'it has TCP connections, which CRIU 3.1[^ ]* cannot move: install CRIU 3.19' ;;
	*) ckptctl checkpoint 1000-pair && touch /home/scientist/pair/stop ;;
	esac
	check_kind orphan 'process [0-9]* ([0-9]* inside the job) has outlived its parent'
	check_kind adopted 'process [0-9]* ([0-9]* inside the job) was adopted by another process than the job.s first'
	check_kind semaphore 'process [0-9]* has an eventfd that counts one by one (EFD_SEMAPHORE, descriptor 4)'
	check_kind deleted 'criu cannot save the job: .*the program has a deleted file open that is too large: set ghost_limit = '
	check_kind service 'criu cannot save the job: .*External socket.*let it close that'
	for run in $runs; do run_ends 0; done
}

# Told without being asked, refused when asked, running on, and saved when it lets go.
check_kind() { # NAME PATTERN
	dir=/home/scientist/$1
	case $2 in
	# Before 6.5 a semaphore is seen when the job stands still.
	*EFD_SEMAPHORE*) ;;
	'criu cannot save'*) ;;
	*)
		await "the word about $1" 90 grep -q "cannot be saved as it is: $2" "$dir/err"
		ckptctl status | grep "cannot be saved: $2"
		;;
	esac
	if ckptctl checkpoint "1000-$1" 2>/tmp/said; then return 1; fi
	cat /tmp/said
	grep -q "$2" /tmp/said
	job_dir=$dir progress 2
	touch "$dir/release"
	await "its release" 90 ckptctl checkpoint "1000-$1"
	touch "$dir/stop"
}

# --- ckptd killed ---

ckptd_dies() {
	await "ckptd's death" 120 zombie_or_gone "$(cat /tmp/ckptd.pid)"
	if logged 'is not in the list'; then return 1; fi
}

# At each of these points, one after the other, in one job's life.
case_killed() {
	configure
	ckptd_start CKPT_FAULT=job.launched=kill
	start
	ckptd_dies
	ckptd_start
	await "the program" 180 steps_are_least 1 "$job_dir/out"
	for point in packer.write store.fsync checkpoint.frozen pageserver.add checkpoint.dumped manifest.publish \
		manifest.published; do
		echo "- $point"
		ckptd_restart CKPT_FAULT=$point=kill
		ckptctl checkpoint 1000-j || :
		ckptd_dies
		progress 2
		ckptd_start
		await "the job to be taken up" 60 job_runs
	done
	epoch
	awk '$2 != NR { print "line " NR ": " $0; exit 1 }' out

	echo "- before and after the final checkpoint is committed"
	ckptd_restart CKPT_FAULT=manifest.publish=kill
	epoch
	ckptctl drain
	ckptd_dies
	frozen
	ckptd_start
	progress 2
	ckptd_restart CKPT_FAULT=manifest.published=kill
	epoch
	ckptctl drain
	ckptd_dies
	frozen
	ckptd_start
	run_ends 75

	echo "- in a restore"
	ckptd_restart CKPT_FAULT=restore.criu=kill
	start
	ckptd_dies
	ckptd_start
	goes_on
	ckptd_restart CKPT_FAULT=job.interrupted=kill
	epoch
	ckptctl drain
	ckptd_dies
	ckptd_start
	run_ends 75
	ckptd_restart CKPT_FAULT=job.recorded=kill
	start
	ckptd_dies
	ckptd_start
	goes_on

	echo "- when all is done but the telling"
	ckptd_restart CKPT_FAULT=job.retired=kill
	epoch
	touch stop
	ckptd_dies
	ckptd_start
	end
}

for name in ${*:-criu_fails criu_crashes_first killed_frozen thawed sent_meanwhile no_mark restore_fails unsaveable killed}; do
	rm -f /tmp/criu-fault /tmp/criu-waits
	cp "$tests/fake-criu" /tmp/criu
	criu=/tmp/criu
	try "$name" "case_$name"
done
finish
