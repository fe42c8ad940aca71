#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: an NFS server with root_squash and two client nodes, one after the other, in a network of their own
# KERNELS: first
# RUN: host
# shellcheck disable=SC2016 # for the shells in guests
set -eu

cd "$(dirname "$0")/../.."
network=nfs$$
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkfifo "$work/fifo"

node() { # N COMMAND: a client's, in the store
	selftests/vm/run "$KERNEL" --cpus 1 --net "$network:$1" -- sh -euxc "/usr/lib/ckpt/lab/nfs mount; cd /mnt/store; $2"
}

selftests/vm/run "$KERNEL" --net "$network:1" --cpus 1 --disk 256 -- /usr/lib/ckpt/lab/nfs server scientist \
	>"$work/fifo" 2>"$work/server" &
server=$!
read -r line <"$work/fifo"
test "$line" = "nfs: ready"

node 2 '
grep " /mnt/store nfs4 .*vers=4.2" /proc/mounts
touch root-was-here && exit 1
su scientist -c "dd if=/dev/urandom of=new bs=1M count=32 conv=fsync && sha256sum new >sum && mv new data"'
node 3 '
su scientist -c "sed s/new/data/ sum | sha256sum -c && rm data sum"
test -z "$(ls | grep -v lost+found)"
# A job with an open file that was deleted here is told that it cannot be saved.
. /usr/lib/ckpt/tests/lib.sh
configure
ckptd_start
exec_as_scientist ckptctl run --class test --job deleted -- python3 -c "
import os, signal
scratch = open(\"scratch\", \"w\")
os.unlink(\"scratch\")
signal.pause()" >/tmp/out 2>/tmp/err </dev/null &
run=$!
await "the word" 60 grep "open that was deleted on NFS (descriptor 3, now /mnt/store/.nfs.*TMPDIR" /tmp/err
kill -INT $run
run_ends 130
/usr/lib/ckpt/lab/nfs end'
wait "$server" || { cat "$work/server"; exit 1; }
