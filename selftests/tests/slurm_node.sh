#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Usage: slurm_node.sh controller|compute STORY [STEP…]	One machine of the cluster of slurm_cluster.sh. /share holds
#	what its admin copies to all nodes, and what the test's guests tell each other.
set -eu
. "${0%/*}/lib.sh"
name=$(hostname)
log=/share/$name.ckptd.log
job=/mnt/store/job
jobcomp=/var/log/jobcomp

munge_start() {
	install -d -o munge -g munge /etc/munge /run/munge /var/lib/munge /var/log/munge
	install -o munge -g munge -m 400 /share/munge.key /etc/munge/munge.key
	setpriv --reuid munge --regid munge --init-groups munged
}

slurm_start() { # DAEMON
	munge_start
	mkdir -p /etc/slurm /var/lib/slurm/slurmctld /var/lib/slurm/slurmd
	cp /share/slurm.conf /etc/slurm
	# As it is without systemd: slurmd makes its cgroup there.
	echo "IgnoreSystemd=yes" >/etc/slurm/cgroup.conf
	mkdir -p /sys/fs/cgroup/system.slice
	slurm_run "$1"
}

slurm_run() { "$1" -D >>"/share/$name.$1.log" 2>&1 </dev/null & } # DAEMON

# --- a compute node ---

compute() { # STORY
	/usr/lib/ckpt/lab/nfs mount
	# What jobs write is on the server within a second.
	echo 100 >/proc/sys/vm/dirty_expire_centisecs
	echo 50 >/proc/sys/vm/dirty_writeback_centisecs
	imds_start
	install -d /etc/ckpt
	install -m 600 /share/key /etc/ckpt/key
	cat >$config <<-EOT
		[daemon]
		imds_endpoint = $imds_endpoint
		imds_poll = 1s
		[class default]
		store = /mnt/store/ckpt
		$("class_$1")
	EOT
	"compute_$1"
	slurm_start slurmd
	while await "an order" 1400 test -e "/share/order.$name"; do
		status=0
		(. "/share/order.$name") >/share/answer 2>&1 || status=$?
		echo $status >/share/answer.status
		rm "/share/order.$name"
	done
}

class_interruption() {
	echo "epoch_interval = 2s"
	echo "checkpoint_interval = 0"
	echo "on_committed = root /usr/lib/ckpt/hooks/slurm-drain"
}

compute_interruption() { ckptd_start; }

class_jobs() {
	echo "epoch_interval = 10s"
	echo "checkpoint_interval = 0"
	echo "save_signal = TERM"
	echo "save_window = 60s"
}

compute_jobs() {
	mkdir -p /etc/slurm/prolog.d
	ln -s /usr/lib/ckpt/slurm/prolog /etc/slurm/prolog.d/10-ckpt
	cat >/etc/slurm/prolog.d/20-look <<-'EOT'
		#!/bin/sh
		ckptctl status >/dev/null 2>&1 || echo "ckptd does not run" >>/tmp/looked
		[ ! -e /tmp/prolog_fails ]
	EOT
	# As much of systemd as the prolog uses; node3's does not work.
	cat >/usr/bin/systemctl <<-EOT
		#!/bin/sh
		export PATH=$PATH
		case "\$(hostname) \$*" in
		"node2 --quiet is-active ckptd") exec ckptctl status >/dev/null 2>&1 ;;
		"node2 start ckptd")
			setsid ckptd >>$log 2>&1 </dev/null &
			until ckptctl status >/dev/null 2>&1; do sleep 0.2; done
			;;
		*) exit 1 ;;
		esac
	EOT
	chmod +x /etc/slurm/prolog.d/20-look /usr/bin/systemctl
	[ "$name" = node2 ] || ckptd_start
}

checkpoint() { # ID: Slurm's, of a job here
	ckptctl checkpoint "$(ckptctl status --json | sed -n "s/^ *\"job\": \"\(.*-slurm-$1-.*\)\".*/\1/p")"
}

# --- the controller ---

# As root on a compute node, with the functions here; prints what it says.
on() { # NODE COMMAND
	echo "$2" >/share/order
	mv /share/order "/share/order.$1"
	await "$1 to do: $2" 300 test ! -e "/share/order.$1"
	cat /share/answer
	[ "$(cat /share/answer.status)" = 0 ]
}

power_off() { # NODE
	echo "${1#node}" >/share/power_off
	await "the power of $1 to be off" 60 test -e /share/off
}

nodes_are_idle() { [ "$(sinfo -h -N -o %N/%T | sort -u | grep -c /idle)" = 2 ]; }

# In a directory of its own.
submit() { # NAME ARGUMENT…
	directory=$job/$1
	shift
	as_scientist mkdir -p "$directory"
	as_scientist sbatch --parsable --chdir="$directory" "$@"
}

# Of one job, or task of an array.
told() { scontrol --oneliner show job "$1" | grep -q "$2"; } # ID PATTERN
await_told() { await "job $1 to be $2" 400 told "$1" "$2"; } # ID PATTERN

runs_on() { # ID NODE
	[ "$(squeue -h -j "$1" -o '%T %N')" = "RUNNING $2" ]
}

tells() { [ "$(grep -c "$2" "$1")" = "$3" ]; } # FILE PATTERN TIMES
await_saved() { await "$1 to tell $2 times that the job is saved" 100 tells "$1" "the job is saved" "$2"; } # FILE TIMES
await_restored() { await "$1 to go on for the ${2}th time" 400 tells "$1" "goes on from checkpoint" "$2"; } # FILE TIMES

steps_more() { # FILE NUMBER
	await "$2 more steps in $1" 200 steps_are_least $(($(steps "$1") + $2)) "$1"
}

program_output() { grep -v '^ckpt: \|^slurmstepd-\|^Error running slurm prolog: 1$' "$1" >/tmp/output; } # FILE

controller() { # STORY [STEP…]
	/usr/lib/ckpt/lab/nfs server scientist >/tmp/nfs &
	await "the storage" 60 grep -q ready /tmp/nfs
	mkdir -p /mnt/store
	mount --bind /srv/store /mnt/store
	install -d -o scientist -m 700 $job
	install -d -m 1777 /mnt/store/ckpt
	slurm_start slurmctld
	slurmctld=$!
	await "two idle nodes" 240 nodes_are_idle
	cd $job
	story=$1
	shift
	"controller_$story" "$@"
}

controller_interruption() {
	id=$(submit job /share/batch)
	out=job/slurm-$id.out
	await_told "$id" JobState=RUNNING
	first=$(squeue -h -j "$id" -o %N)
	echo "job $id runs on $first"
	await "step 20" 120 steps_are_least 20 "$out"
	on "$first" "imds_say '{\"action\": \"terminate\", \"action_in\": 120}'"
	await_told "$id" JobState=PENDING
	echo "requeued after $(steps "$out") steps"
	power_off "$first"

	second=node$((5 - ${first#node}))
	await "the job to run on $second" 240 runs_on "$id" "$second"
	await_restored "$out" 1
	echo "goes on on $second"
	steps_more "$out" 20
	touch job/stop
	await_told "$id" JobState=COMPLETED
	told "$id" "Restarts=1"
	told "$id" "ExitCode=0:0"
	sinfo -h -N -o '%N %T %E' | grep "^$first .*ckpt: the node is taken away"
	grep '^ckpt: ' "$out"
	program_output "$out"
	check_output /tmp/output
	check_digest /tmp/output memory --arena-mib 8
	test -z "$(find /mnt/store/ckpt -mindepth 1)"
	echo "the job ended on $second after $(steps "$out") steps, as if it had never been interrupted"
}

# --- the story of many jobs ---

kept() { find /mnt/store/ckpt -mindepth 1 -maxdepth 1 -printf '%f\n' | sort; }

has_checkpoint() { # ID: of a job
	find /mnt/store/ckpt -path "*-slurm-$1-*/manifest-*" | grep -q .
}

# Where node2, which caches what it finds, sees it at once.
at_once() { on node2 "as_scientist env --chdir=$job $*"; } # COMMAND…

retire() { on node2 "/usr/lib/ckpt/slurm/retire $*"; } # [ARGUMENT]…

retire_removes_nothing() { # [ARGUMENT]…
	before=$(kept)
	retire "$@"
	if [ "$(kept)" != "$before" ]; then
		echo "retire $* removed something: it left $(kept) of $before"
		return 1
	fi
}

# What sacct tells without a database. It complains of what the file says of arrays.
completions() { # ID
	sacct --completion --noheader --parsable2 --format=State --jobs="$1" 2>/dev/null | tr '\n' ' '
}

accounted() { grep -q "^JobId=$1 .* JobState=$2 " $jobcomp; } # ID STATE

# Its state may last for a moment only.
await_requeued() { await_told "$1" "Restarts=$2 "; } # ID TIMES

array_starts() {
	array=$(submit array /share/array)
	await_told "${array}_1" JobState=RUNNING
	await_told "${array}_2" JobState=RUNNING
	task=$(squeue -h -j "${array}_1" -o %A)
}

limit_starts() { limit=$(submit limit --output=out /share/limit); }

script_starts() { script=$(submit script --output=out --exclude=node3 /share/batch); }

all_run() {
	for out in array/out.1 array/out.2 limit/out script/out; do
		await "step 5 in $out" 200 steps_are_least 5 $out
	done
	squeue -h -o '%i %j %N' | sort
	# The first prolog there, which is the last by name, found no ckptd; ours started it, or on node3 could not.
	on node2 "cat /tmp/looked"
	fails sh -c "sinfo -h -N -o '%N %T %E' | grep -i drain"
}

# How long a requeued job has to wait.
wait_s() { # ID
	scontrol --oneliner show job "$1" |
		sed 's/.* SubmitTime=\([^ ]*\) EligibleTime=\([^ ]*\) .*/\1 \2/' >/tmp/times
	read -r from to </tmp/times
	echo $(($(date -d "$to" +%s) - $(date -d "$from" +%s)))
}

# Slurm looks at limits every 30 s, and so sends its signal up to 30 s earlier than it was told.
limit_is_met() {
	await "step 5 in limit/out" 200 steps_are_least 5 limit/out
	scontrol update JobId="$limit" EndTime=now+90
	await_requeued "$limit" 1
	scontrol update JobId="$limit" TimeLimit=UNLIMITED
	test "$(wait_s "$limit")" = 6
	await_saved limit/out 1
	echo "saved before its time limit after $(steps limit/out) steps"
}

node_is_lost() {
	on node3 "checkpoint $array && checkpoint $task"
	steps_more array/out.1 5
	steps_more array/out.2 5
	power_off node3
	scontrol update NodeName=node3 State=DOWN Reason="the power is off"
	await_requeued "${array}_1" 1
	await_requeued "${array}_2" 1
	await "an account of one task" 60 accounted "$array" NODE_FAIL
	await "an account of the other" 60 accounted "$task" NODE_FAIL
	echo "node3 lost its power after $(steps array/out.1) and $(steps array/out.2) steps"
}

script_is_killed() {
	on node2 "checkpoint $script"
	on node2 "kill -9 \$(pgrep -f '/job0*$script/slurm_script')"
	await_told "$script" JobState=FAILED
	told "$script" ExitCode=0:9
	retire_removes_nothing
	retire_removes_nothing --all
	has_checkpoint "$script"
	scontrol requeue "$script"
	echo "its script was killed after $(steps script/out) steps"
}

all_go_on() {
	for out in array/out.1 array/out.2 limit/out script/out; do
		await_restored $out 1
		steps_more $out 5
		grep '^ckpt: ' $out
	done
	grep -q "output that will come again was cut off" array/out.1
	grep -q "output that will come again was cut off" array/out.2
	at_once touch array/1/stop
	await_told "${array}_1" JobState=COMPLETED
	echo "all go on on node2, and a task of the array has completed"
}

all_are_preempted() {
	urgent=$(submit urgent --partition=urgent --exclusive --wrap=:)
	await_told "$urgent" JobState=COMPLETED
	for id in "$array" "$limit" "$script"; do
		await "an account of the preemption of $id" 60 accounted "$id" PREEMPTED
		has_checkpoint "$id"
	done
	await_saved array/out.2 1
	await_saved script/out 1
	await_saved limit/out 2
	retire_removes_nothing
	retire_removes_nothing --all
	echo "saved before they were preempted"
	await_restored array/out.2 2
	await_restored limit/out 2
	await "Slurm to empty script/out" 400 fails grep -q "the job is saved" script/out
	await_restored script/out 1
	grep "^ckpt: the file of its output is shorter than it was" script/out
	for out in array/out.2 limit/out script/out; do
		steps_more $out 5
	done
}

jobs_complete() {
	at_once touch array/2/stop script/stop
	await_told "${array}_2" JobState=COMPLETED
	await_told "$script" JobState=COMPLETED
	told "${array}_2" Restarts=2
	told "$script" Restarts=2
	for id in "$array" "$task" "$script"; do
		await "an account of the end of $id" 60 accounted "$id" COMPLETED
	done
	for number in 1 2; do
		program_output array/out.$number
		check_output /tmp/output
		check_digest /tmp/output memory --arena-mib 4
		grep -qx "SLURM_ARRAY_TASK_ID=$number" array/$number/env
		grep -qx "SLURMD_NODENAME=node3" array/$number/env
		fails grep -q "^SLURM_RESTART_COUNT=" array/$number/env
	done
	grep -qx "SLURM_JOB_ID=$task" array/1/env
	grep -qx "SLURM_JOB_ID=$array" array/2/env
	# With what Slurm had thrown away.
	program_output script/out
	first=$(sed -n 's/^step //p' /tmp/output | head -n 1)
	{ seq -f "step %.0f" $((first - 1)) && cat /tmp/output; } >/tmp/whole
	check_output /tmp/whole
	check_digest /tmp/whole memory --arena-mib 4
	# One job, with an entry for each of its ends.
	test "$(completions "$script")" = "FAILED PENDING PREEMPTED COMPLETED "
	echo "the others completed, as if they had never been interrupted"
}

# Requeued by hand, it is to start again where a prolog fails: that drains the node and holds the job.
limit_is_held() {
	steps_more limit/out 1
	saved=$(grep -c "the job is saved" limit/out)
	restored=$(grep -c "goes on from checkpoint" limit/out)
	on node2 "touch /tmp/prolog_fails"
	scontrol requeue "$limit"
	await_saved limit/out $((saved + 1))
	await_told "$limit" Reason=launch_failed_requeued_held
	sinfo -h -N -o '%N %T %E' | grep "^node2 drain.* Prolog error"
	retire_removes_nothing
	retire_removes_nothing --all
	has_checkpoint "$limit"
	on node2 "rm /tmp/prolog_fails"
	scontrol update NodeName=node2 State=RESUME
	scontrol release "$limit"
	await_restored limit/out $((restored + 1))
	steps_more limit/out 5
	echo "held, released, and goes on"
}

# Slurm gives a batch job BatchStartTimeout, and 10 s for messages, to appear on its node.
runs_long_enough() { # ID
	[ $(($(date +%s) - $(date -d "$(squeue -h -j "$1" -o %S)" +%s))) -gt 12 ]
}

# A node that was off for so short that nobody noticed: Slurm finds it without the job. The fifth time is too often; what
# was requeued before, by a limit, a preemption, by hand and from a node that was declared down, does not count.
limit_is_lost_too_often() {
	await_told "$limit" JobState=RUNNING
	await "its output" 60 test -e limit/out
	restored=$(grep -c "goes on from checkpoint" limit/out) || :
	for time in 1 2 3 4 5; do
		await_restored limit/out $((restored + time - 1))
		steps_more limit/out 1
		# What came after the last one is cut off its output, also that it was restored.
		on node2 "checkpoint $limit"
		await "Slurm to expect it there" 60 runs_long_enough "$limit"
		on node2 "kill -9 \$(pgrep -x slurmd) \$(pgrep -x slurmstepd) \$(pgrep -x workload); slurm_run slurmd"
		[ $time = 5 ] || await_told "$limit" JobState=PENDING
	done
	await_told "$limit" Reason=JobHoldMaxRequeue
	retire_removes_nothing
	retire_removes_nothing --all
	has_checkpoint "$limit"
	scontrol release "$limit"
	await_restored limit/out $((restored + 5))
	steps_more limit/out 5
	echo "lost five times, held, released, and goes on"
}

limit_is_cancelled() {
	scancel "$limit"
	await_told "$limit" JobState=CANCELLED
	await "an account of it" 60 accounted "$limit" CANCELLED
	program_output limit/out
	# Nothing is lost or doubled; it has no end.
	echo "ok cancelled" >>/tmp/output
	check_output /tmp/output
	has_checkpoint "$limit"
	retire
	test -z "$(kept)"
	on node2 "test -z \"\$(ls /var/lib/ckpt/slurm)\""
	echo "cancelled after $(steps limit/out) steps, its checkpoints are gone"
}

# As it is when slurm.conf says nothing of it.
waits_by_default() {
	sed -i /AuthInfo/d /etc/slurm/slurm.conf
	kill "$slurmctld"
	wait "$slurmctld"
	slurm_run slurmctld
	plain=$(submit plain --requeue --wrap="sleep 1000")
	await_told "$plain" JobState=RUNNING
	scontrol requeue "$plain"
	await_told "$plain" JobState=PENDING
	test "$(wait_s "$plain")" = 121
	scancel "$plain"
}

controller_jobs() { # [STEP…]
	[ $# -gt 0 ] || set -- array_starts limit_starts script_starts all_run limit_is_met node_is_lost script_is_killed \
		all_go_on all_are_preempted jobs_complete limit_is_held limit_is_lost_too_often \
		limit_is_cancelled waits_by_default
	for step; do
		begin=$(uptime_s)
		$step
		echo "$step: $(($(uptime_s) - begin)) s"
	done
}

set +e
(
	set -e
	"$@"
)
status=$?
if [ $status != 0 ] && [ "$1" = controller ]; then
	scontrol show job
	sinfo -N -l
	cat $jobcomp
	for file in $job/*/*out*; do cp "$file" "/share/$(echo "${file#$job/}" | tr / -).out"; done
fi
exit $status
