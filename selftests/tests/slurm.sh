#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: a Slurm cluster: the README's batch script is interrupted, requeued, and goes on on the other node
# KERNELS: first
# RUN: host --timeout 900
# A controller, which is the storage, too, and two compute nodes.
set -eu

cd "$(dirname "$0")/../.."
. selftests/tests/cluster.sh

(umask 077 && head -c 1024 /dev/urandom >"$share/munge.key")
sed -n '/^In a Slurm batch script:/,/^`/s/^    //p' README |
	sed 's|\./solver case.in|/usr/lib/ckpt/tests/workload memory --stop stop --arena-mib 8|' >"$share/batch"
grep -q 'ckptctl run .* /usr/lib/ckpt/tests/workload' "$share/batch"
# Real ones wait two minutes for their messages, and before a requeued job starts again.
cat >"$share/slurm.conf" <<'EOT'
ClusterName=lab
SlurmctldHost=node1(10.77.0.1)
SlurmUser=root
AuthInfo=cred_expire=30
MessageTimeout=60
ProctrackType=proctrack/cgroup
TaskPlugin=task/none
ReturnToService=2
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
StateSaveLocation=/var/lib/slurm/slurmctld
SlurmdSpoolDir=/var/lib/slurm/slurmd
NodeName=node2 NodeAddr=10.77.0.2 CPUs=2 RealMemory=512
NodeName=node3 NodeAddr=10.77.0.3 CPUs=2 RealMemory=512
PartitionName=spot Nodes=node2,node3 Default=YES State=UP
EOT

boot 1 slurm_node.sh controller
controller=$guest
boot 2 slurm_node.sh compute
boot 3 slurm_node.sh compute
while kill -0 "$controller" 2>/dev/null; do
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
