#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Usage: soak.sh MINUTES [SEED]	(make soak) The oracle under load for so long: each mechanism that the kernel has in turn,
#				with memory to spare and without, on four CPUs and on two.
set -eu
tests=$(dirname "$0")
minutes=$1
seed=${2:-$(date +%s)}
echo "seed $seed"
modprobe ckpt
mkswap /dev/vda >/dev/null
swapon /dev/vda
# See oracle.sh.
echo 0 >/sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none

mechanisms=
for mechanism in soft-dirty pieces uffd-wp procfs hash; do
	status=0
	"$tests/dirty_oracle" -M $mechanism -m 2 -n 1 >/tmp/out || status=$?
	case $status in
	0) mechanisms="$mechanisms $mechanism" ;;
	77) tail -n 1 /tmp/out ;;
	*) cat /tmp/out; exit 1 ;;
	esac
done

cpus() { # NUMBER
	for cpu in 2 3; do
		if [ $cpu -lt "$1" ]; then echo 1; else echo 0; fi >/sys/devices/system/cpu/cpu$cpu/online
	done
}

seconds=$((minutes * 60 / ($(echo "$mechanisms" | wc -w) * 4)))
for mechanism in $mechanisms; do
	for number in 4 2; do
		cpus $number
		"$tests/dirty_oracle" -M "$mechanism" -s "$seed" -t $seconds
		"$tests/dirty_oracle" -M "$mechanism" -s "$seed" -t $seconds -p 40
	done
done
echo "soak: $minutes minutes, seed $seed, mechanisms$mechanisms: no missed page"
