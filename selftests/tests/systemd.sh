#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: under systemd: readiness, the module, reload, watchdog, restart, jobs that inherit nothing of the unit, the
#	journal, metrics
# KERNELS: first
# RUN: guest --systemd
# shellcheck disable=SC2154 # lib.sh's
set -eu
. /usr/lib/ckpt/tests/lib.sh

# --- instead of lib.sh's: ckptd is the unit's ---

ckptd_start() { systemctl start ckptd; }

ckptd_stop() { systemctl stop ckptd; }

ckptd_restart() { systemctl restart ckptd; }

logged() { journalctl --quiet -u ckptd | grep -q -- "$1"; } # PATTERN

property() { systemctl show --value -p "$1" ckptd; } # NAME

is_active() { [ "$(property ActiveState)/$(property SubState)" = active/running ]; }

try_unit() { # NAME FUNCTION
	systemctl stop ckptd
	failed_before=$failed
	failed=0
	try "$1" "$2"
	[ $failed = 0 ] || journalctl --no-pager -u ckptd -n 40
	failed=$((failed | failed_before))
}

# --- cases ---

# No waiting anywhere: it is there when systemctl says so.
ready() {
	configure
	rmmod ckpt
	systemctl start ckptd
	ckptctl status
	is_active
	test -c /dev/ckpt
	ckptctl doctor
	test "$(stat -c %a:%U /run/ckpt /var/lib/ckpt | tr '\n' ' ')" = "755:root 711:root "
	logged "ckptd .* on "
	test "$(property WatchdogUSec)" = 30s

	echo "[nonsense]" >>"$config"
	fails systemctl reload ckptd
	is_active
	configure
	systemctl reload ckptd

	ckptd_stop
	rm /etc/ckpt/key
	fails systemctl start ckptd
	systemctl stop ckptd
	logged "/etc/ckpt/key"
}

# Prints limits, mask, OOM score and capabilities of a process.
inheritance() { # PID
	cat "/proc/$1/limits"
	grep -E '^(Umask|NoNewPrivs|Seccomp):' "/proc/$1/status"
	cat "/proc/$1/oom_score_adj"
}

inherited() {
	configure
	ckptd_start
	memory_job_start
	# As a process that has the same caller.
	inheritance "$(pgrep -u scientist -x workload | head -n 1)" >/tmp/job
	setpriv --reuid scientist --regid scientist --init-groups sh -c 'exec sleep 1000' &
	other=$!
	await "the process" 10 pgrep -u scientist -x sleep
	inheritance $other >/tmp/expected
	kill $other
	diff /tmp/expected /tmp/job
	cgroup=$(cut -d: -f3 "/proc/$(pgrep -u scientist -x workload | head -n 1)/cgroup")
	case $cgroup in
	/system.slice/lab.service/*) ;;
	*) echo "the job's cgroup is $cgroup"; return 1 ;;
	esac
	memory_job_finish
}

hung_is_replaced() {
	configure
	ckptd_start
	memory_job_start
	old=$(property MainPID)
	kill -STOP "$old"
	await "the watchdog" 120 ended "$old"
	await "the next ckptd" 60 is_active
	test "$(property NRestarts)" -ge 1
	test "$(property MainPID)" != "$old"
	logged "Watchdog timeout"
	await "an epoch" 60 field_is_least epochs 1
	memory_job_finish
}

# --- what a person, or a program, sees of a job; $job is its full name ---

is_watched() { [ "$(grep -c "^$job .*running" /tmp/watch)" -ge "$1" ]; } # TIMES

is_measured() { # EPOCHS
	count=$(sed -n "s/^ckpt_job_epochs_total{job_id=\"$job\",class=\"test\"} //p" /run/metrics/ckpt.prom)
	[ "${count:-0}" -ge "$1" ]
}

# The fields of its entries, as PYTHON, a condition on one of them in e, says; prints the number that it holds for.
logged_entries() { # PYTHON
	ckptctl logs --since "@$begun" --json "$job" | python3 -c '
import json, sys
print(sum(1 for e in map(json.loads, sys.stdin) if eval(sys.argv[1])))' "$1"
}

epochs_are_logged() { [ "$(logged_entries 'e.get("CKPT_EPOCH") == "2" and ": epoch: " in e["MESSAGE"]')" -ge 1 ]; }

killed_is_replaced() {
	begun=$(date +%s)
	mkdir -p /run/metrics /etc/ckpt/conf.d
	printf '[daemon]\nmetrics_file = /run/metrics/ckpt.prom\n' >/etc/ckpt/conf.d/metrics.conf
	configure
	ckptd_start
	memory_job_start
	job=$(ckptctl status --json | sed -n 's/^ *"job": "\(.*\)",*$/\1/p')
	ckptctl status --watch=1 >/tmp/watch 2>/tmp/watch.err &
	watch=$!
	await "two looks" 30 is_watched 2
	await "its epochs in the journal" 30 epochs_are_logged
	await "its epochs in the metrics" 40 is_measured 2
	test "$(stat -c %a /run/metrics/ckpt.prom)" = 644
	kill -9 "$(property MainPID)"
	await "the next ckptd" 60 ckptctl status
	await "an epoch" 60 field_is_least epochs 1
	# It goes on with the next ckptd.
	looks=$(grep -c "^$job .*running" /tmp/watch)
	await "another look" 30 is_watched $((looks + 1))
	kill $watch
	test "$(logged_entries 'e["CKPT_JOB"] == "'"$job"'" and e["PRIORITY"] == "6"')" -ge 2
	# Stopped, it is not started again, and the job runs on.
	ckptd_stop
	test ! -e /run/metrics/ckpt.prom
	rm /etc/ckpt/conf.d/metrics.conf
	fails is_active
	progress 3
	ckptd_start
	await "an epoch" 60 field_is_least epochs 1
	memory_job_finish
	committed=$(ckptctl logs --since "@$begun" "$job" | sed -n 's/.* final checkpoint \([^ ]*\) committed: .*/\1/p')
	ckptctl logs --checkpoint "$committed" "$job" | grep "$committed committed"
	test -z "$(ckptctl logs --checkpoint "$committed" 0-other)"
	# The journal is not everybody's, not even with one's own job in it, nor the group ckpt's; only of those that it names.
	groupadd --system ckpt
	for group in scientist ckpt systemd-journal; do
		setpriv --reuid scientist --regid scientist --groups $group ckptctl logs --lines 1 "$job" >/tmp/logs.$group \
			2>/dev/null || :
	done
	groupdel ckpt
	test ! -s /tmp/logs.scientist
	test ! -s /tmp/logs.ckpt
	grep 1000- /tmp/logs.systemd-journal
}

# A job of root's has the unit's capabilities, and is restored with them.
job_of_root() {
	configure
	ckptd_start
	mkdir -p "$job_dir"
	cd "$job_dir"
	ckptctl run --class test --job r -- "$workload" memory --stop stop --arena-mib 4 >out 2>err </dev/null &
	run=$!
	await "an epoch" 60 field_is_least epochs 1
	progress 3
	ckptctl drain
	run_ends 75
	ckptd_restart
	ckptctl run --class test --job r -- "$workload" memory --stop stop --arena-mib 4 >>out 2>>err </dev/null &
	run=$!
	await "the restore" 60 grep -q "goes on from checkpoint" err
	progress 3
	touch stop
	run_ends 0
	check_output out
	check_digest out memory --arena-mib 4
}

# The lab installs programs as make install does.
systemd-analyze verify /usr/lib/systemd/system/ckptd.service
systemd-analyze security --no-pager ckptd | tail -n 1

try_unit "ready when systemctl says so; reload, failure" ready
try_unit "a job inherits nothing of the unit" inherited
try_unit "ckptd that hangs is replaced by the watchdog" hung_is_replaced
try_unit "ckptd that is killed is replaced, stopped it stays away" killed_is_replaced
try_unit "a job of root's" job_of_root
systemctl stop ckptd
finish
