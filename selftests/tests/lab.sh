#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: the lab itself tells the truth: statuses, output, failures of the kernel, power failures, networks
# KERNELS: first
# RUN: host
# shellcheck disable=SC2016 # for the shells in guests
set -eu

cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkfifo "$work/fifo"

run() {
	selftests/vm/run "$KERNEL" "$@"
}

expect() { # STATUS RUN'S-ARGUMENTS…
	expected=$1 status=0
	shift
	echo "== $*, expecting $expected"
	run "$@" >"$work/out" 2>&1 || status=$?
	tail -n 5 "$work/out"
	test "$status" = "$expected"
}

ended() { # PID: waits until it has
	tail --pid="$1" -f /dev/null
}

expect 7 -- sh -c 'exit 7'
expect 137 -- sh -c 'kill -9 $$'

echo "== output is neither changed nor cut"
python3 -c 'import sys; sys.stdout.buffer.write(bytes(range(256)) * 4096)' >"$work/bytes"
mkdir "$work/share"
run --share "$work/share" -- python3 -c '
import os, sys
data = bytes(range(256)) * 4096
sys.stdout.buffer.write(data)
with open("/share/new", "wb") as file:
	file.write(data)
	os.fsync(file.fileno())
os.rename("/share/new", "/share/bytes")' >"$work/out"
cmp "$work/bytes" "$work/out"
cmp "$work/bytes" "$work/share/bytes"

expect 125 -- sh -c 'echo c >/proc/sysrq-trigger'
grep -q 'Kernel panic' "$work/out"
expect 125 -- sh -c 'echo "WARNING: CPU: 0 PID: 1 at made/up.c" >/dev/kmsg'
expect 125 --timeout 8 -- sleep 1000
grep -q timeout "$work/out"
expect 0 --disk 64 -- sh -c 'mke2fs -q /dev/vda && mount /dev/vda /mnt && echo >/mnt/file && test -s /mnt/file'

echo "== kill -9 of QEMU is a power failure"
run --pidfile "$work/pid" -- sh -c 'echo up; exec sleep 1000' >"$work/fifo" 2>"$work/err" &
read -r line <"$work/fifo"
test "$line" = up
kill -9 "$(cat "$work/pid")"
status=0
wait $! || status=$?
test $status = 125

echo "== QEMU ends with run, whatever ends run"
for signal in KILL TERM; do
	selftests/vm/run "$KERNEL" --pidfile "$work/pid" -- sh -c 'echo up; exec sleep 1000' >"$work/fifo" 2>"$work/err" &
	read -r line <"$work/fifo"
	pid=$(cat "$work/pid") # QEMU removes the file when it can
	kill -$signal $!
	ended "$pid"
done

echo "== two guests on a network, nothing else there, and again after a power failure"
for _ in 1 2; do
	run --net "lab$$" --pidfile "$work/pid" -- python3 -uc '
import socket
server = socket.create_server(("", 2049))
print("up on", socket.gethostname())
while True:
	peer = server.accept()[0]
	peer.sendall(peer.getpeername()[0].encode())
	peer.close()' >"$work/fifo" 2>"$work/err" &
	read -r line <"$work/fifo"
	test "$line" = "up on node1"
	run --net "lab$$:2" -- python3 -c '
import socket
print(socket.create_connection(("node1", 2049)).recv(100).decode())
try:
	socket.create_connection(("192.0.2.1", 80), 5)
	print("there is a way out")
except OSError:
	pass' >"$work/out"
	test "$(cat "$work/out")" = 10.77.0.2
	pid=$(cat "$work/pid")
	kill -9 "$pid"
	wait $! || :
done
