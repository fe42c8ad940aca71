#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: the examples in the manual pages do what is said there
# KERNELS: first
# RUN: guest
# Those behind '# ' are root's, those behind '$ ' a user's. ./solver case.in is a job of the test's.
# shellcheck disable=SC2034,SC2154 # lib.sh's
set -eu
. /usr/lib/ckpt/tests/lib.sh
pages=/usr/share/man

# The commands of a page's examples, one a line, as they are typed.
examples() { # PAGE
	sed -n '/^\.Sh EXAMPLES/,/^\.Sh SEE/p' "$pages"/man?/"$1" | sed -n 's/\\e/\\/g;/^[#$] /p'
}

run_example() { # LINE
	echo "== $1"
	case $1 in
	'# '*) sh -ec "${1#??}" ;;
	'$ '*) as_scientist sh -ec "${1#??}" ;;
	esac
}

run_examples() { # PAGE
	examples "$1" >/tmp/examples
	test -s /tmp/examples
	while read -r line <&9; do run_example "$line"; done 9</tmp/examples
}

setup() {
	mkdir -p /shared/ckpt
	chmod 1777 /shared/ckpt
	store=/shared/ckpt
	# The one that is installed, but for the metadata, that the guest has not.
	[ -e /tmp/installed ] || cp "$config" /tmp/installed
	sed 's|^\[daemon\]|&\nimds_endpoint = off|' /tmp/installed >"$config"
	rm -f /etc/ckpt/key
}

ckptd_page() {
	setup
	ckptctl key new
	ckptd_start
	run_examples ckptd.8
}

# The page's own configuration, instead of the one above.
config_page() {
	sed -n '/^\.Sh EXAMPLES/,/^\.Sh SEE/p' $pages/man5/ckptd.conf.5 | sed -n '/^\.Bd/,/^\.Ed/{/^\./!p}' >/tmp/ckptd.conf
	grep -q '^\[class solver\]' /tmp/ckptd.conf
	ckptd --check-config /tmp/ckptd.conf | grep "2 job classes, no errors"
}

# `run` stays in the foreground, so the others go on beside it.
ckptctl_page() {
	setup
	install -d -o scientist "$job_dir"
	cd "$job_dir"
	printf '#!/bin/sh\ntest "$*" = case.in && exec %s memory --arena-mib 8 --stop stop\n' "$workload" >solver
	chmod 755 solver
	examples ckptctl.1 >/tmp/examples
	test "$(wc -l </tmp/examples)" -ge 8
	while read -r line <&9; do
		case $line in
		'$ ckptctl run '*)
			ckptd_start
			echo "== $line"
			run_line=${line#??}
			exec_as_scientist sh -c "exec $run_line" >out 2>err </dev/null 9<&- &
			run=$!
			await "an epoch" 60 field_is_least epochs 1
			;;
		*) run_example "$line" ;;
		esac
	done 9</tmp/examples
	# The last one was the end; the same line goes on.
	run_ends 75
	test -x /var/tmp/flow/restore.sh
	ckptd_restart
	exec_as_scientist sh -c "exec $run_line" >>out 2>>err </dev/null &
	run=$!
	await "the restore" 60 grep -q "goes on from checkpoint" err
	progress 3
	touch stop
	run_ends 0
	check_output out
	check_digest out memory --arena-mib 8
}

# Without the one of root's, which writes gigabytes.
ckptbench_page() {
	examples ckptbench.1 | grep '^\$ ' >/tmp/examples
	test -s /tmp/examples
	while read -r line <&9; do run_example "$line"; done 9</tmp/examples
}

# The program of ckpt(4) tells of what a process writes between two looks.
device_page() {
	awk '/^#include/,/^\.Ed/' $pages/man4/ckpt.4 | sed '/^\.Ed/d;s/\\e/\\/g' >/tmp/written.c
	gcc -o /tmp/written /tmp/written.c
	python3 -uc '
import ctypes, sys
size = 16 << 20
memory = ctypes.create_string_buffer(size)
print(hex(ctypes.addressof(memory)))
for line in sys.stdin:
	memory[size // 2] = b"x"
	print("written")' </tmp/go >/tmp/said &
	writer=$!
	exec 8>/tmp/go
	await "the buffer" 60 test -s /tmp/said
	mkfifo /tmp/look
	/tmp/written $writer </tmp/look >/tmp/regions &
	looker=$!
	exec 7>/tmp/look
	await "the first look" 60 sleeps_reading $looker
	echo go >&8
	await "the write" 60 grep -q written /tmp/said
	echo >&7
	await_status 60 $looker
	exec 8>&- 7>&-
	python3 - <<'PYTHON'
buffer = int(open("/tmp/said").readline(), 16)
end = buffer + (16 << 20)
written = buffer + (8 << 20)
regions = [[int(a, 16) for a in line.split("-")] for line in open("/tmp/regions")]
assert any(first <= written < last for first, last in regions), (hex(written), regions)
# A huge page at most, and those at its ends that it has in common with what else is written.
of_buffer = sum(max(0, min(last, end) - max(first, buffer)) for first, last in regions)
assert of_buffer <= 3 * (2 << 20), (hex(buffer), regions)
PYTHON
}

sleeps_reading() { # PID: in read() of its standard input
	grep -q '^0 0x0 ' "/proc/$1/syscall"
}

mkfifo /tmp/go
try ckptd ckptd_page
try ckptd.conf config_page
try ckptctl ckptctl_page
try ckptbench ckptbench_page
try ckpt device_page
finish
