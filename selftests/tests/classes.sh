#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: job classes: reload under a running job, hooks, alert, signals, what is kept of ended jobs, and five
#	jobs that one notice hits
# KERNELS: first
# RUN: guest
# Usage: classes.sh [CASE]…	(all)
set -eu
. "${0%/*}/lib.sh"

parts=/etc/ckpt/conf.d
hooks=/usr/local/lib/ckpt-hooks
told=/var/told		# not sticky: the kernel forbids to add to others' files in /tmp

# A small job: what takes time here is CRIU.
job_start() {
	# shellcheck disable=SC2016 # for the job's shell
	run_start --job loop -- sh -c '
		trap "echo usr1 >>got" USR1
		trap "echo term >>got; exit 3" TERM
		i=0
		while [ ! -e stop ]; do i=$((i + 1)); echo "step $i"; sleep 0.05; done
		echo ok loop'
}

part() { # LINE…: what conf.d says now
	mkdir -p $parts
	printf '%s\n' "$@" >$parts/50-site.conf
}

value() { ckptctl config test | awk -v key="$1" '$1 == key { print $2 }'; }

one_more() { # FIELD
	before=$(field "$1")
	await "one more of $1" 90 field_is_least "$1" $((${before:-0} + 1))
}

reload() {
	configure
	ckptd_start
	job_start
	await "an epoch" 60 field_is_least epochs 1

	echo "== an error changes nothing, and is told with its place"
	part "[class test]" "" "keep = none"
	fails ckptctl reload 2>/tmp/refusal
	grep -q "$parts/50-site.conf:3: keep = 'none' is not valid" /tmp/refusal
	fails ckptd --check-config 2>/tmp/refusal
	grep -q "$parts/50-site.conf:3: " /tmp/refusal
	ckptctl status | grep -q "reload of the configuration was refused.*50-site.conf:3"
	test "$(value keep)" = 2
	one_more epochs

	echo "== new values hold at once, a new store for new jobs"
	part "[class test]" "keep = 3" "store = /tmp/elsewhere" "checkpoint_interval = 10s"
	kill -HUP "$(cat /tmp/ckptd.pid)"
	await "the reload" 60 logged "loop: goes on with its store"
	fails grep -q refused <<-END
		$(ckptctl status)
	END
	test "$(value keep)" = 3
	test "$(value store)" = /tmp/elsewhere
	ckptctl config --json test | grep -q "\"from\": \"$parts/50-site.conf:2\""
	await "a checkpoint by the new interval" 90 field_is_least checkpoints 1
	test -n "$(find "$store" -name 'manifest-*')"
	test ! -e /tmp/elsewhere

	echo "== a class that is gone, and a restart without it, leave its jobs alone"
	rm -r $parts
	sed -i 's/class test/class other/' "$config"
	ckptctl reload
	logged "class test is not configured any more"
	one_more epochs
	ckptd_restart
	logged "the job goes on with the values that it had"
	await "an epoch after the restart" 90 field_is_least epochs 1
	touch stop
	run_ends 0
	check_output out
	check_no_trace
}

hook_make() {
	mkdir -p $hooks $told
	chmod 777 $told
	cat >$hooks/tell <<-'END'
		#!/bin/sh
		echo "$1 $(id -un) $2 final=$CKPT_FINAL cause=$CKPT_CAUSE old=$CKPT_OLD_NODE safety=$CKPT_SAFETY class=$CKPT_CLASS" >>/var/told/all
	END
	chmod 755 $hooks/tell
	touch $told/all
	chmod 666 $told/all
}

# A command that the README's hooks call: it notes who called it how, and goes on with what it reads here.
stand_in() { # NAME
	{
		echo '#!/bin/sh'
		echo 'echo "$(id -un): ${0##*/} $*" >>/var/told/all'
		cat
	} >"/usr/local/bin/$1"
	chmod 755 "/usr/local/bin/$1"
}

stand_ins() {
	stand_in aws <<-'END'
		if [ ! -e /var/told/credentials ]; then
			echo "Unable to locate credentials" >&2
			exit 253
		fi
		case $2 in
		describe-network-interfaces) cat /var/told/attachment ;;
		detach-network-interface) echo None >/var/told/attachment ;;
		wait | attach-network-interface) grep -qx None /var/told/attachment ;;
		esac
	END
	echo eni-attach-66c4350a >$told/attachment
	stand_in ec2-metadata <<-'END'
		echo "instance-id: i-1234567890abcdef0"
	END
	stand_in lmutil <<-'END'
		cat /var/told/licenses
	END
	stand_in mail <<-'END'
		cat >>/var/told/all
	END
}

licenses_in_use() { # NUMBER
	echo "Users of solver:  (Total of 2 licenses issued;  Total of $1 in use)" >$told/licenses
}

heard() { grep -q "^$1" $told/all; }

# Not in err: what came after the checkpoint is cut off it.
restored() { [ "$(grep -c ": goes on from checkpoint" $log)" = "$1" ]; } # TIMES

ends() {
	hook_make
	configure "save_signal = USR1" "save_window = 60s" "on_committed = $hooks/tell"
	ckptd_start
	job_start
	await "an epoch" 60 field_is_least epochs 1
	progress 3

	echo "== a signal that asks for it"
	kill -USR1 $run
	run_ends 75
	grep "the job is saved, as was asked for" err
	heard "on_committed scientist 1000-loop final=1 cause=signal"
	test ! -e got
	job_start
	await "the restore" 90 restored 1
	progress 3

	echo "== somebody else who asks for it"
	ckptctl checkpoint --end --json 1000-loop | grep '"final": true'
	run_ends 75
	heard "on_committed scientist 1000-loop final=1 cause=request"
	job_start
	await "the restore" 90 restored 2
	progress 3

	echo "== one that ends the program, as when a scheduler requeues it"
	kill -TERM $run
	run_ends 3
	grep -q term got
	grep "ended from outside, so its checkpoints are kept" err
	job_start
	await "the restore" 90 restored 3
	progress 3
	kill -9 "$(field pid)"
	run_ends 137
	job_start
	await "the restore" 90 restored 4
	progress 3

	echo "== its run is killed, and the same line comes before the job has ended"
	kill -9 $run
	job_start
	waiting=$run
	await "the refusal to begin it twice" 60 grep -q "who ran this job here before is gone.*waiting" err
	kill -INT $waiting
	run_ends 130
	job_start
	await "the restore" 120 restored 5
	progress 3

	echo "== one that ends it for good"
	kill -INT $run
	run_ends 130
	check_no_trace

	echo "== its own end, while criu stands ready to save it"
	rm -f out
	ckptd_restart CKPT_FAULT=checkpoint.prepared=stop
	job_start
	await "an epoch" 60 field_is_least epochs 1
	root=$(field pid)
	ckptctl checkpoint 1000-loop >/tmp/said 2>&1 &
	await "criu" 60 stopped "$(cat /tmp/ckptd.pid)"
	touch stop
	await "the program's end" 60 ended "$root"
	kill -CONT "$(cat /tmp/ckptd.pid)"
	run_ends 0
	check_output out
	check_no_trace
}

# pre_restore and on_forecast are the README's.
hooks() {
	hook_make
	stand_ins
	# With no more than a tenth of a second for it, no final checkpoint can be in time.
	configure "$(readme_hook move-address)" "post_restore = $hooks/tell" "on_committed = job $hooks/tell" \
		"on_missed = root $hooks/tell" "$(readme_hook ask-for-on-demand)" "margin = 119900ms" \
		"notice_signal = USR1" "notice_grace = 3s" "end_signal = USR1" "end_grace = 1s"
	ckptd --check-config
	ckptd_start
	job_start
	await "an epoch" 60 field_is_least epochs 1
	await "the alert" 120 heard "root: mail -s ckpt hpc-admins"
	await "its text" 60 heard "1000-loop on guest: the final checkpoint needs [0-9]* of 100 ms: move it to On-Demand"
	grep -q "a notice now would find too much to save" err
	ckptctl checkpoint 1000-loop
	await "the hook after it" 60 heard "on_committed scientist 1000-loop final=0 .* safety= class=test"
	ckptctl drain
	run_ends 75
	heard "on_missed root 1000-loop"
	heard "on_committed scientist 1000-loop final=1 cause=notice"
	ckptd_restart

	echo "== a hook that fails keeps a job from being restored, and nothing else"
	job_start
	run_ends 125
	grep -q "move-address failed with status 253: Unable to locate credentials" err
	test "$(grep -c ": aws" $told/all)" = 1
	fails heard post_restore
	touch $told/credentials
	: >$told/all
	job_start
	await "the restore" 90 restored 1
	await "the hook after it" 60 heard "post_restore scientist 1000-loop .* old=guest"
	cat >/tmp/expected <<-'END'
		root: aws ec2 describe-network-interfaces --network-interface-ids eni-0123456789abcdef0 --output text --query NetworkInterfaces[0].Attachment.AttachmentId
		root: aws ec2 detach-network-interface --force --attachment-id eni-attach-66c4350a
		root: aws ec2 wait network-interface-available --network-interface-ids eni-0123456789abcdef0
		root: ec2-metadata -i
		root: aws ec2 attach-network-interface --network-interface-id eni-0123456789abcdef0 --device-index 1 --instance-id i-1234567890abcdef0
	END
	grep "^root: [ae]" $told/all | diff /tmp/expected -
	progress 3
	test "$(cat got)" = usr1

	echo "== one that waits lets the job wait, and it goes on then"
	ckptctl checkpoint --end 1000-loop
	run_ends 75
	licenses_in_use "2 licenses"
	part "[class test]" "$(readme_hook wait-for-license)"
	ckptctl reload
	job_start
	await "the question" 90 heard "scientist: lmutil lmstat -c 27000@licenses -f solver"
	fails restored 2
	licenses_in_use "1 license"
	await "the restore" 90 restored 2
	progress 3

	echo "== one that others can change is not run"
	chmod 777 $hooks/tell
	fails ckptd --check-config
	rm -f $told/all
	ckptctl checkpoint 1000-loop
	await "the refusal" 60 logged "tell is not run, since others than root can change"
	test ! -e $told/all

	echo "== a job whose run is gone is ended gently, and then not so"
	kill -9 $run
	await "the signal, after those of two notices" 90 sh -c '[ "$(grep -c usr1 got)" = 3 ]'
	await "its end" 60 no_jobs
	test -n "$(find "$store" -name 'manifest-*')"
}

checkpoints() { find "$store" -name 'manifest-*'; }

job_ends() {
	progress 2
	ckptctl checkpoint 1000-loop
	touch stop
	run_ends 0
	await "ckptd to forget the job" 30 no_jobs
	rm stop
}

retention() {
	configure "keep_after_end = 1h"
	ckptd_start
	job_start
	job_ends
	test -n "$(checkpoints)"

	echo "== by hand they are there again"
	rm "$(find "$store" -name 'term-*' | sort | tail -n 1)"
	job_start
	await "the restore" 90 grep -q "goes on from checkpoint" err
	job_ends

	echo "== else the job begins anew, and when the time has come they are gone"
	part "[daemon]" "clean_interval = 1s" "[class test]" "keep_after_end = 1s"
	ckptctl reload
	mv out out.before
	job_start
	job_ends
	test "$(head -n 1 out)" = "step 1"
	await "the cleaner" 60 fails test -e "$store/1000-loop"
	logged "nobody needs its checkpoints any more"
}

# One that writes all of its memory all the time, and small ones beside it.
window_starts() { # JOB
	job_dir=/home/scientist/$1
	case $1 in
	large) run_start --job large -- python3 -c '
import os
memory, step = bytearray(os.urandom(4096)) * 24576, 0
while True:
    step += 1
    for at in range(0, len(memory), 4096):
        memory[at:at + 8] = step.to_bytes(8, "little")
    print("step", step, flush=True)
' ;;
	*) run_start --job "$1" -- sh -c 'i=0; while :; do i=$((i + 1)); echo "step $i"; sleep 0.05; done' ;;
	esac
	runs="$runs $run"
}

jobs_with_epochs() { [ "$(ckptctl status --json | grep -c '"epochs": [1-9]')" = "$1" ]; } # NUMBER

# All are saved in the window, and none waits for the large one, though its pages come first.
window() {
	imds_start
	configure "epoch_interval = 1h"
	ckptd_start
	runs=
	for name in large small1 small2 small3 small4; do window_starts $name; done
	await "the first epoch of each" 200 jobs_with_epochs 5
	await "3 more steps of the large one" 90 steps_are_least $(($(steps /home/scientist/large/out) + 3)) /home/scientist/large/out
	imds_say '{"action": "terminate", "action_in": 120}'
	for run in $runs; do run_ends 75 120; done
	fails logged "is not durable"
	sed -n 's/.* \([^ ]*\): final checkpoint .* committed: \([0-9]*\) pages.*/\1 \2/p' $log >/tmp/committed
	cat /tmp/committed
	test "$(wc -l </tmp/committed)" = 5
	tail -n 1 /tmp/committed | grep 1000-large
	kill $imds
	imds_endpoint=off
}

clean_classes() {
	rm -rf /home/scientist/large /home/scientist/small*
	rm -rf $parts $hooks $told /etc/ckpt/hooks
}

for case in ${*:-reload hooks ends retention window}; do
	clean_classes
	try "$case" "$case"
done
clean_classes
finish
