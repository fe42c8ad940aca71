#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Usage: slurm_node.sh controller|compute	One machine of the cluster of slurm.sh. /share holds what its admin copies
#						to all nodes, and what the test's guests tell each other.
set -eu
. "${0%/*}/lib.sh"
name=$(hostname)
log=/share/$name.ckptd.log
job=/mnt/store/job

munge_start() {
	install -d -o munge -g munge /etc/munge /run/munge /var/lib/munge /var/log/munge
	install -o munge -g munge -m 400 /share/munge.key /etc/munge/munge.key
	setpriv --reuid munge --regid munge --init-groups munged
}

slurm_start() { # DAEMON
	for number in 1 2 3; do echo "10.77.0.$number node$number"; done >>/etc/hosts
	munge_start
	mkdir -p /etc/slurm /var/lib/slurm/slurmctld /var/lib/slurm/slurmd
	cp /share/slurm.conf /etc/slurm
	# As it is without systemd: slurmd makes its cgroup there.
	echo "IgnoreSystemd=yes" >/etc/slurm/cgroup.conf
	mkdir -p /sys/fs/cgroup/system.slice
	"$1" -D >"/share/$name.$1.log" 2>&1 </dev/null &
}

compute() {
	/usr/lib/ckpt/lab/nfs mount
	imds_start
	install -d /etc/ckpt
	install -m 600 /share/key /etc/ckpt/key
	cat >$config <<-EOT
		[daemon]
		imds_endpoint = $imds_endpoint
		imds_poll = 1s
		[class default]
		store = /mnt/store/ckpt
		epoch_interval = 2s
		checkpoint_interval = 0
		on_committed = root /usr/lib/ckpt/hooks/slurm-drain
	EOT
	ckptd_start
	slurm_start slurmd
	await "the interruption" 700 test -e "/share/interrupt.$name"
	imds_say '{"action": "terminate", "action_in": 120}'
	exec sleep 1000 # the power fails
}

nodes_are_idle() { [ "$(sinfo -h -N -o %T | grep -cx idle)" = 2 ]; }

told() { scontrol show job "$id" | grep -q "$1"; } # PATTERN

runs_on() { # NODE
	[ "$(squeue -h -j "$id" -o '%T %N')" = "RUNNING $1" ]
}

steps_to() { # NUMBER
	await "step $1" 120 steps_are_least "$1" "$out"
}

controller() {
	/usr/lib/ckpt/lab/nfs server scientist >/tmp/nfs &
	await "the storage" 60 grep -q ready /tmp/nfs
	mkdir -p /mnt/store
	mount --bind /srv/store /mnt/store
	install -d -o scientist -m 700 $job /mnt/store/ckpt
	slurm_start slurmctld
	await "two idle nodes" 240 nodes_are_idle

	id=$(cd $job && as_scientist sbatch --parsable /share/batch)
	out=$job/slurm-$id.out
	await "the job to run" 120 told JobState=RUNNING
	first=$(squeue -h -j "$id" -o %N)
	echo "job $id runs on $first"
	steps_to 20
	touch "/share/interrupt.$first"
	await "the job to be requeued" 120 told JobState=PENDING
	echo "requeued after $(steps "$out") steps"
	echo "${first#node}" >/share/power_off
	await "the power to be off" 30 test -e /share/off

	second=node$((5 - ${first#node}))
	await "the job to run on $second" 240 runs_on "$second"
	await "the restore" 120 grep -q "goes on from checkpoint" "$out"
	echo "goes on on $second"
	steps_to $(($(steps "$out") + 20))
	touch $job/stop
	await "the job's end" 120 told JobState=COMPLETED
	told "Restarts=1"
	told "ExitCode=0:0"
	sinfo -h -N -o '%N %T %E' | grep "^$first .*ckpt: the node is taken away"
	grep '^ckpt: ' "$out"
	grep -v '^ckpt: \|^slurmstepd-' "$out" >/tmp/output
	check_output /tmp/output
	check_digest /tmp/output memory --arena-mib 8
	test -z "$(find /mnt/store/ckpt -mindepth 1)"
	echo "the job ended on $second after $(steps "$out") steps, as if it had never been interrupted"
}

set +e
(
	set -e
	"$1"
)
status=$?
if [ $status != 0 ] && [ "$1" = controller ]; then
	scontrol show job
	sinfo -N -l
	cp $job/slurm-*.out /share
fi
exit $status
