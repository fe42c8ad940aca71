#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: what is missing, wrong or damaged is named with its remedy, and no job is lost, restored wrong or run twice
# KERNELS: first
# RUN: guest --timeout 1200
# Usage: refusals.sh [CASE…]	(all)
set -eu
. "${0%/*}/lib.sh"
small="--arena-mib 4"

start() { # [OPTION…]
	# shellcheck disable=SC2086 # a list of options
	run_start --job j -- "$workload" memory --stop stop $small "$@"
}

end() {
	touch stop
	run_ends 0
	check_output out
	# shellcheck disable=SC2086
	check_digest out memory $small
	check_no_trace
}

epoch() { await "an epoch" 60 field_is_least epochs "${1:-1}"; }

# A command that must fail, with this status and these words.
fails_with() { # STATUS PATTERN COMMAND…
	expected=$1 pattern=$2 found=0
	shift 2
	"$@" >/tmp/said 2>&1 </dev/null || found=$?
	cat /tmp/said
	if [ $found != "$expected" ] || ! grep -q -- "$pattern" /tmp/said; then
		echo "$*: status $found, expected $expected and '$pattern'"
		return 1
	fi
}

run_fails() { # STATUS PATTERN [OPTION…] COMMAND…
	expected=$1 pattern=$2
	shift 2
	fails_with "$expected" "$pattern" as_scientist ckptctl run "$@"
}

doctor_fails() { fails_with 1 "$1" ckptctl doctor; } # PATTERN

ckptd_fails() { fails_with 1 "$1" timeout 60 ckptd; } # PATTERN

# --- before there is a job ---

bad_config() { # PATTERN TEXT
	printf "$2" >$config
	ckptd_fails "^ckptd: $config$1"
}

case_config() {
	configure
	bad_config ':3: unknown key .retries.' '[class test]\nstore = /tmp/store\nretries = 3\n'
	doctor_fails "^FAIL  configuration  *$config:3: unknown key"
	bad_config ':2: .*a duration from' '[daemon]\nimds_poll = often\n[class a]\nstore = /s\n'
	bad_config ':1: .*store' '[class test]\nkeep = 2\n'
	bad_config ':1: .*no text' '\177ELF\002\001'
	bad_config ':1: .*before the first section' 'store = /tmp/store\n'
	bad_config ': no job class' ''
	rm $config
	ckptd_fails "$config: cannot read: No such file"
	configure
	rm /etc/ckpt/key
	ckptd_fails 'cannot read the cluster key /etc/ckpt/key: No such file.*ckptctl key new'
	doctor_fails '^FAIL  cluster key .*ckptctl key new'
	ckptctl key new
	chmod 644 /etc/ckpt/key
	ckptd_fails 'cluster key /etc/ckpt/key .*chmod 600'
	chmod 600 /etc/ckpt/key
	echo short >/etc/ckpt/key
	ckptd_fails 'cluster key /etc/ckpt/key has 6 bytes, instead of 32'
	rm /etc/ckpt/key
	run_fails 125 'ckptd does not run on this node: systemctl start ckptd' --class test true
}

fake() { # VERSION'S ANSWER
	printf '#!/bin/sh\n%s\n' "$1" >/tmp/criu
	chmod +x /tmp/criu
}

case_criu() {
	criu=/tmp/nothing configure
	ckptd_fails "CRIU is missing ('/tmp/nothing' cannot be run): install the package criu"
	doctor_fails '^FAIL  CRIU .*install the package criu'
	criu=/tmp/criu configure
	fake 'echo "Version: 3.16.1"'
	ckptd_fails 'CRIU 3.16.1 is too old: install 3.17 or later'
	fake 'echo hello'
	ckptd_fails "'/tmp/criu --version' does not answer like CRIU, set criu = .*: hello"
	fake 'sleep 1000'
	ckptd_fails "'/tmp/criu --version' did not answer within"
}

case_run() {
	configure
	mkdir -p "$job_dir"
	chown scientist: "$job_dir"
	cd "$job_dir"
	ckptd_start
	run_fails 125 "no job class 'nosuch'.*ckptctl status" --class nosuch -- true
	run_fails 2 "'../x' is no job name: " --class test --job ../x -- true
	run_fails 2 'Usage: ' --class test
	run_fails 127 'cannot run ./nothing: No such file' --class test ./nothing
	run_fails 126 'cannot run /etc/passwd: Permission denied' --class test /etc/passwd
	run_fails 126 'cannot run /tmp: Permission denied' --class test /tmp
	fails_with 125 'standard input is a pipe.*< /dev/null' sh -c "echo | setpriv --reuid scientist --clear-groups ckptctl run --class test cat"
	fails_with 125 'standard input is a device.*< /dev/null' sh -c "setpriv --reuid scientist --clear-groups ckptctl run --class test cat </dev/zero"
	fails_with 0 'standard input is a terminal.*reads /dev/null' script -qec "ckptctl run --class test cat" /dev/null
	mkdir gone
	chown scientist: gone
	fails_with 125 'cannot tell the working directory' as_scientist sh -c 'cd gone; rmdir ../gone; exec ckptctl run --class test true'
	check_no_trace
	fails_with 1 'another ckptd runs on this node' ckptd

	start
	epoch
	run_fails 125 'the job 1000-j runs on this node already.*--job NAME' --class test --job j -- true
	fails_with 125 'there is no such job of yours.*ckptctl status' ckptctl checkpoint nosuch
	# What it has for itself, as root sees it, is no place for others, nor for its user outside.
	test -d /var/lib/ckpt/jobs/1000-j/private/0
	fails setpriv --reuid other --clear-groups ls /var/lib/ckpt/jobs/1000-j/private/0
	fails as_scientist ls /var/lib/ckpt/jobs/1000-j/private/0
	end
}

as_other() { setpriv --reuid other --regid other --init-groups "$@"; }

# Of the group ckpt, and of another one.
as_member() { setpriv --reuid 1002 --regid 1002 --groups 778,777 "$@"; }

as_stranger() { setpriv --reuid 1003 --regid 1003 --groups 778 "$@"; }

sees() { # JOBS COMMAND…: that runs what follows it
	jobs=$1
	shift
	seen=$("$@" ckptctl status --json | sed -n 's/^ *"job": "\(.*\)",*$/\1/p' | sort | tr '\n' ' ')
	if [ "$seen" != "$jobs" ]; then
		echo "$*: sees ${seen:-no jobs}, expected ${jobs:-none}"
		return 1
	fi
}

both_run() { [ "$(ckptctl status --json | grep -c '"state": "running"')" = 2 ]; }

# Two users have a job of the same name each, in the same store, and touch only their own; a member of the group sees both.
case_users() {
	groupadd --system --gid 777 ckpt
	configure "epoch_interval = 10s"
	ckptd_start
	start
	install -d -o other /home/other/job
	(cd /home/other/job && exec setpriv --reuid other --regid other --init-groups ckptctl run --class test --job j -- \
		sh -c 'until [ -e stop ]; do sleep 0.2; done' >out 2>err </dev/null) &
	other_run=$!
	await "both to run" 60 both_run

	sees "1000-j " as_scientist
	sees "1001-j " as_other
	sees "1000-j 1001-j " as_member
	sees "1000-j 1001-j " setpriv --reuid 1002 --regid 777 --clear-groups
	sees "1000-j 1001-j " env
	sees "" as_stranger

	fails_with 125 'there is no such job of yours' as_other ckptctl checkpoint 1000-j
	fails_with 125 'there is no such job of yours' as_other ckptctl checkpoint --end 1000-j
	as_other ckptctl checkpoint j | grep committed
	fails_with 0 '^1000-j .* 0 ' ckptctl list
	grep '^1001-j .* 1 ' /tmp/said
	as_member ckptctl checkpoint 1000-j | grep committed
	for who in as_scientist as_member; do
		fails_with 125 'only root may drain' $who ckptctl drain
		fails_with 125 'only root may reload' $who ckptctl reload
		for command in list "show 1000-j" verify "export 1000-j /tmp/exported" "prune 1000-j" doctor; do
			# shellcheck disable=SC2086 # several words
			fails_with 2 'must be run as root' $who ckptctl $command
		done
	done

	# Nor past ckptctl: what the store has, output, memory, cgroup, key.
	# shellcheck disable=SC2016 # for the shell of the user's
	as_member sh -c 'for place; do ls "$place"; done; echo 1 >/sys/fs/cgroup/ckpt-1000-j/cgroup.freeze; cat /etc/ckpt/key' \
		sh "$store/1000-j" /var/lib/ckpt/jobs/1000-j "/proc/$(pgrep -u scientist -x workload)/fd" >/tmp/said 2>&1 || :
	cat /tmp/said
	test "$(grep -c 'Permission denied' /tmp/said)" = 5
	test "$(wc -l </tmp/said)" = 5

	as_member ckptctl checkpoint --end --json 1001-j | grep '"final": true'
	await_status 60 $other_run || test $? = 75
	sees "1000-j " as_member
	ckptctl prune 1001-j
	groupdel ckpt
	end
}

class() { # NAME LINE…
	echo "[class $1]"
	shift
	printf '%s\n' "$@"
}

case_store() {
	configure
	mkdir -p /tmp/theirs /tmp/fixed
	: >/tmp/file
	mountpoint -q /tmp/fixed || mount -t tmpfs -o ro tmpfs /tmp/fixed
	{
		class none 'store = /tmp/none'
		class file 'store = /tmp/file'
		class theirs 'store = /tmp/theirs'
		class fixed 'store = /tmp/fixed'
		class user 'store = /tmp/theirs' 'store_user = other'
		class linked 'store = /tmp/store' 'private = /home/scientist/linked'
	} >>$config
	ckptd_start
	run_fails 125 'store /tmp/none .*No such file.*mount it' --class none -- true
	run_fails 125 'store /tmp/file .*ot a directory' --class file -- true
	run_fails 125 '/tmp/theirs/.*Permission denied; user 1000, .*chown' --class theirs -- true
	run_fails 125 '/tmp/fixed/.*mounted read-only: mount it read-write' --class fixed -- true
	run_fails 125 '/tmp/theirs/.*Permission denied; user 1001, .*(store_user' --class user -- true
	as_scientist ln -s /etc /home/scientist/linked
	run_fails 125 'opening /home/scientist/linked.*behind a link: Too many' --class linked -- true
	rm /home/scientist/linked
	doctor_fails '^FAIL  store of class none .*No such file.*mount'
	grep '^FAIL  store of class file .*ot a directory' /tmp/said
	grep '^FAIL  store of class fixed .*read-only' /tmp/said
	grep '^FAIL  store of class user .*user other.*chown' /tmp/said
	grep '^note  store of class theirs .*store_user' /tmp/said
	umount /tmp/fixed
}

# --- around a job ---

said() { await "'$1'" 60 sh -c "ckptctl status | grep -q 'problem: .*$1'"; } # PATTERN

no_problem() { ! ckptctl status | grep problem:; }

epochs_have_no_problem() { ! ckptctl status | grep problem: | grep -v 'the last checkpoint failed'; }

recovers() {
	await "the end of the problem" 60 epochs_have_no_problem
	ckptctl checkpoint 1000-j
	no_problem
	progress 2
}

# Its output may be held back: another node could have the job.
job_goes_on() {
	own=/var/lib/ckpt/jobs/1000-j/stdout
	await "more steps of the job" 60 steps_are_least $(($(steps $own) + 2)) $own
}

case_store_fails() {
	mkdir -p /tmp/disk "$store"
	mountpoint -q /tmp/disk || mount -t tmpfs -o size=96m,mode=1777 tmpfs /tmp/disk
	mount --bind /tmp/disk "$store"
	configure
	ckptd_start
	start
	epoch

	dd if=/dev/zero of=/tmp/disk/filler bs=64k >/dev/null 2>&1 || :
	said 'the store is full: free space'
	ckptctl drain
	await "the word about it" 60 grep 'final checkpoint failed, the job runs on: .*the store is full' err
	progress 2
	rm /tmp/disk/filler
	run_ends 75

	ckptd_restart
	start
	progress 2
	epoch
	await "no write at work" 60 mount -o remount,ro,bind "$store"
	said 'mounted read-only: mount it read-write'
	fails_with 125 'mounted read-only' ckptctl checkpoint 1000-j
	job_goes_on
	mount -o remount,rw,bind "$store"
	recovers

	umount -l "$store"
	said 'the store is not mounted'
	fails_with 125 'the store is not mounted' ckptctl checkpoint 1000-j
	job_goes_on
	mount --bind /tmp/disk "$store"
	recovers

	umount -l "$store"
	ckptd_restart
	said 'the store is not mounted'
	job_goes_on
	mount --bind /tmp/disk "$store"
	recovers

	echo "- the program ends while neither ckptd nor the store is there"
	ckptd_stop KILL
	umount -l "$store"
	touch stop
	await "the program's end" 60 test -e /var/lib/ckpt/jobs/1000-j/exit
	ckptd_start
	run_ends 0
	grep 'checkpoints cannot be removed' err
	check_output out
	mount --bind /tmp/disk "$store"
	umount "$store"
	umount /tmp/disk
}

flip() { # FILE: a bit in its middle
	python3 -c '
import os, sys
with open(sys.argv[1], "r+b") as file:
    file.seek(os.path.getsize(sys.argv[1]) // 2)
    byte = file.read(1)[0]
    file.seek(-1, 1)
    file.write(bytes([byte ^ 1]))' "$1"
}

flip_all() {
	for file in "$store"/1000-j/seg-*; do flip "$file"; done
}

newest() { for file in "$store/1000-j/$1"-*; do :; done; echo "$file"; } # KIND

run_again_fails() { # PATTERN
	sha256sum "$store/1000-j/"* >/tmp/before
	: >err
	start
	run_ends 125
	cat err
	grep -q "$1" err
	# Nothing is touched that a repair could need.
	sha256sum "$store/1000-j/"* | diff /tmp/before -
}

case_damage() {
	configure
	ckptd_start
	start
	epoch
	ckptctl checkpoint 1000-j
	progress 3
	ckptctl drain
	run_ends 75

	ckptd_stop
	cp /etc/ckpt/key /tmp/key
	head -c 32 /dev/urandom >/etc/ckpt/key
	ckptd_start
	run_again_fails 'sealed with the cluster key .*which this node has not.*give this node the key file'
	ckptd_stop
	cp /tmp/key /etc/ckpt/key
	ckptd_start

	flip_all
	run_again_fails 'seg-.* is damaged.*No checkpoint before it is left'
	flip_all
	steps_before=$(steps out)
	flip "$(newest manifest)"
	start
	await "the restore" 90 grep 'goes on from checkpoint' err
	grep 'manifest-.* is damaged.*trying the checkpoint before it' err
	grep 'output that will come again was cut off' err
	progress 3
	end
	test "$(steps out)" -ge 3
}

case_class_gone() {
	configure
	ckptd_start
	start
	epoch
	ckptd_stop KILL
	sed -i 's/^\[class test\]/[class other]/' $config
	ckptd_start
	logged "class test is not configured any more: the job goes on with the values that it had"
	epoch
	ckptctl checkpoint 1000-j
	no_problem
	run_fails 125 "no job class 'test'" --class test -- true
	ckptd_stop
	configure
	ckptd_start
	epoch
	no_problem
	end
}

case_run_killed() {
	configure
	ckptd_start
	start
	epoch
	ckptctl checkpoint 1000-j
	kill -9 "$run"
	await "the job's end" 60 no_jobs
	logged "its 'ckptctl run' is gone"
	start
	await "the restore" 60 grep 'goes on from checkpoint' err
	end
}

# --- two ckptds, each with its own /run and /var/lib: two nodes ---

on_b() { nsenter -t "$(cat /tmp/b.pid)" -m -u "$@"; }

b_start() {
	mkdir -p /sys/fs/cgroup/b
	unshare -m -u sh -c '
		hostname b
		for at in /run/ckpt /var/lib/ckpt; do mkdir -p $at; mount -t tmpfs tmpfs $at; done
		echo $$ >/tmp/b.pid
		echo 0 >/sys/fs/cgroup/b/cgroup.procs
		exec ckptd' >>/tmp/b.log 2>&1 </dev/null &
	await "ckptd on b to answer" 60 on_b ckptctl status
}

b_run() {
	on_b sh -c 'echo 0 >/sys/fs/cgroup/b/cgroup.procs; cd "$1"; shift; exec "$@"' sh "$job_dir" \
		setpriv --reuid scientist --regid scientist --init-groups --reset-env env "WORKLOAD_MARK=$mark" \
		ckptctl run --class test --job j -- "$workload" memory --stop stop $small "$@"
}

case_two_nodes() {
	configure
	ckptd_start
	b_start
	start
	epoch
	ckptctl checkpoint 1000-j
	fails_with 125 'the job 1000-j runs on node guest; two of one job cannot run at a time.*--job NAME' b_run

	echo "- a has a long pause, b takes over, a comes back"
	kill -STOP "$(cat /tmp/ckptd.pid)" "$run"
	echo 1 >/sys/fs/cgroup/ckpt-1000-j/cgroup.freeze
	run_a=$run
	b_run >>out 2>>err </dev/null &
	run=$!
	await "the restore on b" 90 grep 'goes on from checkpoint' err
	echo 0 >/sys/fs/cgroup/ckpt-1000-j/cgroup.freeze
	kill -CONT "$(cat /tmp/ckptd.pid)"
	await "the end of the job on a" 60 no_jobs
	logged 'another node has taken over this job'
	kill -CONT "$run_a"
	await_status 60 "$run_a" || test $? = 125
	grep 'another node has taken over this job' err
	progress 3
	touch stop
	run_ends 0
	test -z "$(find "$store" -mindepth 1)"
	kill "$(cat /tmp/b.pid)"
}

# --- a user who takes too much ---

# One takes connections, another one begins requests that never become whole; others are served while they hold what they
# got.
case_hog() {
	configure
	ckptd_start
	start
	epoch
	cat >/tmp/hog <<'PYTHON'
import os, socket, struct, sys
def connect():
	s = socket.socket(socket.AF_UNIX)
	s.connect("/run/ckpt/control")
	return s
def is_closed(s):
	s.settimeout(60)
	try:
		return s.recv(1) == b""
	except ConnectionResetError:
		return True
os.setuid(int(sys.argv[1]))
mine = [connect()]
if sys.argv[2] == "connections":
	mine += [connect() for i in range(599)]
	assert is_closed(mine[-1])
else:
	request = struct.pack("<I", 8 << 20) + bytes((8 << 20) - 1)
	try:
		while len(mine) < 40:
			mine[-1].sendall(request)
			mine.append(connect())
	except (BrokenPipeError, ConnectionResetError):
		pass
	assert 4 <= len(mine) < 40, len(mine)
print("held", flush=True)
sys.stdin.read()
PYTHON
	mkfifo /tmp/hog.go
	python3 /tmp/hog 1001 connections </tmp/hog.go >/tmp/hog.connections &
	connections=$!
	python3 /tmp/hog 1002 bytes </tmp/hog.go >/tmp/hog.bytes &
	bytes=$!
	exec 8>/tmp/hog.go
	await "all connections that one gets" 60 grep -q held /tmp/hog.connections
	await "all memory that one gets" 60 grep -q held /tmp/hog.bytes
	grep 'a connection of user 1001 is closed: it has 513' $log | head -n 1
	grep 'a connection of user 1002 is closed: it has .*, with [6-9][0-9][.0-9]* MiB' $log
	as_scientist ckptctl status | grep 1000-j
	progress 3
	exec 8>&-
	await_status 60 $connections
	await_status 60 $bytes
	rm /tmp/hog.go
	end
}

# --- a user who puts something else in the place of what a job had open ---

holder_is_refused() { # PATTERN
	: >err
	run_start --job h -- python3 -u /tmp/holder
	run_ends 125
	cat err
	grep -q "$1" err
}

# DIRECTORY: in its place is a link to one of root's.
swapped_is_refused() {
	mv "$1" own
	ln -s /opt/root "$1"
	holder_is_refused "cannot restore the job: .*$1"
	test "$(ls -l /opt/root)" = "$(cat /tmp/before)"
	rm "$1"
	mv own "$1"
}

# What root may do and the job's user may not, a restore does not do for that user.
case_swapped() {
	configure
	ckptd_start
	cat >/tmp/holder <<'PYTHON'
import os, socket, struct, time
def peer(connection):
	return struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
kept = open("kept/file"), open("/opt/tree/old"), open("kept/mine"), open("kept/ours", "r+")
os.chmod("kept/mine", 0)
service = socket.socket(socket.AF_UNIX)
service.bind(os.getcwd() + "/served/socket")
service.listen()
client = socket.socket(socket.AF_UNIX)
client.connect("served/socket")
lost = open("gone/lost", "w+")
lost.write("lost\n")
lost.flush()
os.unlink("gone/lost")
print("held", flush=True)
while not os.path.exists("go"):
	time.sleep(0.2)
lost.seek(0)
print(*(file.read().strip() for file in (*kept, lost)))
print(peer(client), peer(service.accept()[0]))
PYTHON
	mkdir -p "$job_dir" /opt/tree /opt/root
	(umask 077 && echo "for root" >/opt/root/file && : >/opt/root/socket)
	ls -l /opt/root >/tmp/before
	echo old >/opt/tree/old
	chown scientist: "$job_dir"
	as_scientist sh -c "cd $job_dir; mkdir kept served gone; umask 077; echo for user >kept/file; echo mine >kept/mine"
	# Its user's by a group that is not the first.
	groupadd --gid 779 project
	usermod --append --groups project scientist
	echo ours >"$job_dir/kept/ours"
	chown root:project "$job_dir/kept/ours"
	chmod 660 "$job_dir/kept/ours"
	run_start --job h -- python3 -u /tmp/holder
	await "the job" 90 grep -q held out
	# As when a library is replaced that jobs use.
	rm /opt/tree/old
	ckptctl checkpoint --end 1000-h
	run_ends 75

	mv kept/file file
	ln -s /opt/root/file kept/file
	holder_is_refused 'kept/file.*Permission denied'
	rm kept/file
	mv file kept/file
	swapped_is_refused served
	swapped_is_refused gone

	run_start --job h -- python3 -u /tmp/holder
	await "the restore" 90 grep -q 'goes on from checkpoint' err
	touch go
	run_ends 0
	grep -x 'for user old mine ours lost' out
	grep -x '1000 1000' out
	test -z "$(find gone /opt/tree -type f)"
	test -S served/socket
	groupdel project
}

limit_descriptors() { prlimit --pid "$(cat /tmp/ckptd.pid)" "--nofile=$1:"; } # NUMBER

open_files() { ckptctl show 1000-j | grep -m 1 -o '[0-9]* open files'; } # of the newest checkpoint

# What ckptd lacks is no reason to leave something out: a checkpoint knows all of the job's files, or there is none.
case_few_descriptors() {
	configure "epoch_interval = 1h"
	ckptd_start
	run_start --job j -- "$workload" files --stop stop
	epoch
	ckptctl checkpoint 1000-j
	all=$(open_files)
	for more in 4 8 12 16; do
		limit_descriptors $(($(find "/proc/$(cat /tmp/ckptd.pid)/fd" -type l | wc -l) + more))
		if ckptctl checkpoint 1000-j >/tmp/said 2>&1; then
			test "$(open_files)" = "$all"
		else
			grep 'Too many open files\|criu cannot save the job' /tmp/said
		fi
		limit_descriptors 65536
	done
	ckptd_restart CKPT_FAULT=proc.descriptor=EMFILE
	epoch
	fails_with 125 'cannot write back .*Too many open files' ckptctl checkpoint 1000-j
	ckptctl checkpoint 1000-j
	test "$(open_files)" = "$all"
	progress 2
	touch stop
	run_ends 0
	check_output out
}

# --- notices ---

case_imds() {
	# By IPv6, as on instances that have nothing else.
	imds_start --bind ::1 --set '{"mode": "garbage-all"}'
	imds_endpoint="http://[::1]:${imds_endpoint##*:}"
	configure
	sed -i '/imds_endpoint/d' $config
	ckptd_start "AWS_EC2_METADATA_SERVICE_ENDPOINT=$imds_endpoint"
	await "the word" 30 sh -c 'ckptctl status | grep "\[::1\].*notices cannot be seen"'
	imds_say '{"mode": "normal"}'
	await "the word" 30 logged 'watching for notices'
	if ckptctl status | grep 'cannot be seen'; then return 1; fi
	start
	epoch
	imds_say '{"mode": "401", "times": 3, "action": "terminate", "action_in": 120}'
	run_ends 75
	logged 'EC2 will terminate this instance'
	run_fails 75 'nothing is started here any more.*another node' --class test --job k -- true
	kill "$imds"
}

for name in ${*:-config criu run users store store_fails damage class_gone run_killed two_nodes hog swapped few_descriptors imds}; do
	try "$name" "case_$name"
done
finish
