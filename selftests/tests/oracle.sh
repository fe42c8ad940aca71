# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
# For tests with the oracle under load, in a guest with four CPUs and a disk for swap.
# Sourced: . "${0%/*}/oracle.sh"; the test's first argument is the seed.

modprobe ckpt
mkswap /dev/vda >/dev/null
swapon /dev/vda
# khugepaged makes pages of zeros where the job has dropped some, and does not freeze with it: between the last collect and
# the comparison there would be pages that nobody wrote.
echo 0 >/sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none
seed=${1:-$(date +%s)}
echo "seed $seed"

# A mechanism that the kernel has not is passed over.
oracle() { # MECHANISM OPTION…
	mechanism=$1
	shift
	status=0
	"${0%/*}/dirty_oracle" -M "$mechanism" -s "$seed" "$@" >/tmp/oracle || status=$?
	tee -a /tmp/oracles </tmp/oracle
	[ "$status" = 0 ] || [ "$status" = 77 ]
}

# Fewer would say little.
enough() { # COLLECTS: of each mechanism, with a million writes
	awk -F'[:,] ' -v least="$1" '
		/ collects, / && !/^\.\.\. / {
			for (i = 2; i <= NF; i++) {
				split($i, part, " ")
				if (part[2] == "collects") collects[$1] += part[1]
				if (part[2] == "writes" || part[2] == "hot") writes[$1] += part[1]
			}
		}
		END {
			for (mechanism in collects) {
				print mechanism ": " collects[mechanism] " collects, " writes[mechanism] " writes in all"
				bad += collects[mechanism] < least || writes[mechanism] < 1e6
			}
			exit bad || !length(collects)
		}' /tmp/oracles
}

# In a guest that has no more, nothing changes.
two_cpus() {
	for cpu in 2 3; do
		[ ! -e /sys/devices/system/cpu/cpu$cpu ] || echo 0 >/sys/devices/system/cpu/cpu$cpu/online
	done
}
