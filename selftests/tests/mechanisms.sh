#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: which mechanism tracks a job, and why, is said; what each does while a job runs does it no harm
# KERNELS: criu
# RUN: guest
set -eu
. "${0%/*}/lib.sh"

the_module_is_missing() {
	rmmod ckpt
	configure
	ckptd_start
	ckptctl doctor >/tmp/doctor || :
	grep "^note .*mechanism soft-dirty .*modprobe ckpt" /tmp/doctor
	grep "^note .*mechanism uffd-wp .*modprobe ckpt" /tmp/doctor
	grep "^ok .*mechanism $(next_best) .*used for mechanism = auto" /tmp/doctor
	grep "^ok .*mechanism procfs " /tmp/doctor || grep "^note .*mechanism procfs .*may forget that a page was written" /tmp/doctor
	grep "^ok .*mechanism hash " /tmp/doctor
	if grep -qw aes /proc/cpuinfo; then grep "^ok .*sealing" /tmp/doctor; fi
	memory_job_start
	ckptctl status | grep "mechanism $(next_best), because soft-dirty: .*modprobe ckpt.*; uffd-wp: "
	logged "tracked by $(next_best), because soft-dirty"
	if [ "$(next_best)" = procfs ]; then
		ckptctl status --json | grep '"frozen_ms": [0-9]'
		logged "job frozen for [0-9]* ms"
	fi
	memory_job_finish
	modprobe ckpt
}

# An epoch of procfs has the job frozen when ckptd dies.
killed_while_frozen() {
	configure "mechanism = procfs"
	ckptd_start CKPT_FAULT=reader.frozen:3=kill
	run_start -- "$workload" memory --stop stop --arena-mib 8
	await "ckptd's death" 60 zombie_or_gone "$(cat /tmp/ckptd.pid)"
	progress 3
	ckptd_start
	await "an epoch" 60 field_is_least epochs 1
	memory_job_finish
}

has_userfaultfd() { find "/proc/$1/fd" -lname '*userfaultfd*' | grep .; } # PID

# With ckptd its userfaultfd of the job goes.
killed_with_userfaultfd() {
	configure "mechanism = uffd-wp"
	ckptd_start
	memory_job_start
	ckptd_stop KILL
	progress 3
	ckptd_start
	await "an epoch" 60 field_is_least epochs 1
	grep -l userfaultfd /proc/"$(cat /tmp/ckptd.pid)"/fdinfo/* >/dev/null || has_userfaultfd "$(cat /tmp/ckptd.pid)"
	if has_userfaultfd "$(field pid)"; then
		echo "the job has a userfaultfd"
		return 1
	fi
	memory_job_finish
}

# The program that a job becomes is not left alone until the next epoch is due.
executed() {
	configure "epoch_interval = 1h"
	ckptd_start
	# shellcheck disable=SC2016 # for the job's shell
	run_start -- sh -c 'while [ ! -e go ]; do sleep 0.1; done; exec "$@"' sh "$workload" memory --stop stop
	await "the first epoch" 60 field_is_least epochs 1
	touch go
	await "an epoch of the new program" 60 field_is_least epochs 2
	touch stop
	run_ends 0
}

# What a job has dropped khugepaged fills with zeros, also while the job stands still; its content is then in no epoch
# and in no list of written pages.
dropped() { # MECHANISM
	configure "mechanism = $1"
	ckptd_start CKPT_FAULT=reader.collected=stop
	run_start --job j -- python3 -u $tests/dropped.py
	await "its pages" 60 grep -q filled out
	await "two epochs with them" 60 field_is_least epochs $(($(field epochs) + 2))
	pid=$(field pid)
	touch drop
	await "the dropping" 60 grep -q dropped out
	ckptctl drain &
	await "the frozen collect" 60 grep -q '^State:[[:space:]]*T' "/proc/$(cat /tmp/ckptd.pid)/status"
	collapsed=0
	python3 $tests/dropped.py --collapse "$pid" "$(sed -n 's/filled //p' out)" || collapsed=$?
	kill -CONT "$(cat /tmp/ckptd.pid)"
	run_ends 75
	if [ $collapsed = 77 ]; then
		echo "khugepaged of this kernel leaves alone what is write-protected"
	else
		test $collapsed = 0
	fi
	ckptd_restart
	run_start --job j -- python3 -u $tests/dropped.py
	await "the restore" 60 grep -q "goes on from checkpoint" err
	touch stop
	run_ends 0
	grep "all is right" out
}
dropped_softdirty() { dropped soft-dirty; }
dropped_procfs() { dropped procfs; }

without_soft_dirty() {
	configure
	ckptd_start CKPT_FAULT=criu.no_soft_dirty
	ckptctl status | grep "CRIU sends all pages"
	logged "CRIU sends all pages"
}

modprobe ckpt
configure
ckptd_start
ckptctl doctor || :
try "the module is missing" the_module_is_missing
modprobe ckpt
ckptd_start
if mechanism_works procfs; then
	try "ckptd is killed while it has the job frozen" killed_while_frozen
	try "pages are dropped and filled, procfs" dropped_procfs
	ckptd_start
else
	echo "skip procfs: not on this kernel"
fi
if mechanism_works uffd-wp; then
	try "ckptd is killed with a userfaultfd of the job" killed_with_userfaultfd
else
	echo "skip uffd-wp: not on this kernel"
fi
try "pages are dropped and filled, soft-dirty" dropped_softdirty
try "a job executes another program" executed
try "no soft-dirty bits for CRIU" without_soft_dirty
finish
