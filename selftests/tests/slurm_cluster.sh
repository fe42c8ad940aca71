# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
# A Slurm cluster of three guests: a controller, which is the storage, too, and two compute nodes. Sourced from the top
# of the tree; slurm_node.sh is what runs in them.
. selftests/tests/cluster.sh

(umask 077 && head -c 1024 /dev/urandom >"$share/munge.key")

# The batch script of the README, with a program of ours.
batch_script() { # WORKLOAD-ARGUMENT…
	sed -n '/^In a Slurm batch script:/,/^`/s/^    //p' README |
		sed "s|\./solver case.in|/usr/lib/ckpt/tests/workload $*|" >"$share/batch"
	grep -q 'ckptctl run .* /usr/lib/ckpt/tests/workload' "$share/batch"
}

# Real ones wait two minutes before a requeued job starts again, and longer for the scheduler; and they do not wait for
# messages as long as these slow machines need. The nodes can have more jobs than they have CPUs.
configure_slurm() { # [LINE]…
	cat >"$share/slurm.conf" <<-'EOT'
		ClusterName=lab
		SlurmctldHost=node1(10.77.0.1)
		SlurmUser=root
		AuthInfo=cred_expire=5
		SchedulerParameters=sched_interval=2,bf_interval=5,batch_sched_delay=0
		MessageTimeout=60
		KillWait=60
		BatchStartTimeout=1
		ProctrackType=proctrack/cgroup
		TaskPlugin=task/none
		SelectType=select/cons_tres
		SelectTypeParameters=CR_CPU
		SlurmdParameters=config_overrides
		ReturnToService=2
		SlurmctldPidFile=/run/slurmctld.pid
		SlurmdPidFile=/run/slurmd.pid
		StateSaveLocation=/var/lib/slurm/slurmctld
		SlurmdSpoolDir=/var/lib/slurm/slurmd
		NodeName=node2 NodeAddr=10.77.0.2 CPUs=8 RealMemory=512 Weight=2
		NodeName=node3 NodeAddr=10.77.0.3 CPUs=8 RealMemory=512 Weight=1
		PartitionName=spot Nodes=node2,node3 Default=YES State=UP
	EOT
	printf '%s\n' "$@" >>"$share/slurm.conf"
}

# Runs the story of that name. The controller writes the address of a node that loses its power to /share/power_off.
tell_story() { # NAME [STEP…]
	boot 1 slurm_node.sh controller "$@"
	controller=$guest
	boot 2 slurm_node.sh compute "$1"
	node2=$guest
	boot 3 slurm_node.sh compute "$1"
	node3=$guest
	while kill -0 "$controller" 2>/dev/null; do
		if [ ! -s "$share/power_off" ] && ! kill -0 "$node2" "$node3" 2>/dev/null; then
			tell
			exit 1
		fi
		if [ -s "$share/power_off" ] && [ ! -e "$share/off" ]; then
			kill -9 "$(cat "$work/pid.$(cat "$share/power_off")")"
			touch "$share/off"
		fi
		sleep 0.2
	done
	status=0
	wait "$controller" || status=$?
	cat "$work/node1"
	[ $status = 0 ] || tell
	exit $status
}
