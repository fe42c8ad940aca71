#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Usage: slurm_jobs.sh [STEP…]	Only these steps of controller_jobs (slurm_node.sh), in this order.
# DESCRIPTION: a Slurm cluster: jobs that meet their time limit, a preemption, a lost node, a killed script, a prolog that
#	fails; their checkpoints go when they are completed or cancelled, and not before
# KERNELS: first
# RUN: host --timeout 1500
set -eu

cd "$(dirname "$0")/../.."
. selftests/tests/slurm_cluster.sh
# shellcheck disable=SC2034 # of cluster.sh
guest_timeout=1400

workload="/usr/lib/ckpt/tests/workload memory --arena-mib 4 --pause-ms 100 --max-seconds 1500"
batch_script memory --arena-mib 4 --pause-ms 100 --max-seconds 1500 --stop stop
# Slurm empties the output of this one.
sed -i '/open-mode/d' "$share/batch"
cat >"$share/limit" <<EOT
#!/bin/bash
#SBATCH --exclude=node3 --time=10 --signal=B:TERM@60 --requeue --open-mode=append
exec ckptctl run --class default -- $workload --stop stop
EOT
cat >"$share/array" <<EOT
#!/bin/bash
#SBATCH --output=out.%a --array=1-2 --requeue --open-mode=append
mkdir -p \$SLURM_ARRAY_TASK_ID
cd \$SLURM_ARRAY_TASK_ID
exec ckptctl run --class default -- sh -c '$workload --stop stop && env | grep ^SLURM >env'
EOT
configure_slurm "PartitionName=urgent Nodes=node2,node3 State=UP PriorityTier=10" \
	PreemptType=preempt/partition_prio PreemptMode=REQUEUE RequeueExit=75 \
	JobCompType=jobcomp/filetxt JobCompLoc=/var/log/jobcomp \
	"Prolog=/etc/slurm/prolog.d/*" Epilog=/usr/lib/ckpt/slurm/epilog
tell_story jobs "$@"
