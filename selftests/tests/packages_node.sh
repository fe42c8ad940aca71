#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Usage: packages_node.sh VERSION	A node's life with the packages of packages.sh, that lie in /share/old.d and /share/new.d: an image is
#				made and boots, jobs run, the packages are upgraded, removed, purged.
# shellcheck disable=SC2154,SC2317 # lib.sh's
set -eu
version=$1
. "${0%/*}/lib.sh"
export DEBIAN_FRONTEND=noninteractive

ckptd_start() { systemctl start ckptd; }
ckptd_stop() { systemctl stop ckptd; }
ckptd_restart() { systemctl restart ckptd; }

# What the lab has installed without packages; the tests stay.
forget_lab() {
	rmmod ckpt
	rm -r "/usr/lib/modules/$(uname -r)/updates" /usr/src/ckpt-* /etc/ckpt
	find /usr/lib/ckpt -mindepth 1 -maxdepth 1 ! -name tests ! -name lab -exec rm -r {} +
	find /usr/sbin /usr/bin /usr/include/linux /usr/lib/systemd/system /usr/share -name 'ckpt*' -prune -exec rm -r {} +
	depmod
	systemctl daemon-reload
	# No network: all that the packages depend on is here.
	rm -rf /etc/apt/sources.list /etc/apt/sources.list.d
}

runs_version() { ckptctl status --json | grep -q "\"version\": \"$1\""; } # VERSION

node() {
	forget_lab
	echo "== an image is made"
	/share/provision /share/old.d
	test "$(systemctl is-enabled ckptd)" = enabled
	test ! -e /etc/ckpt/key
	fails systemctl is-active ckptd

	echo "== its instances get key and configuration"
	configure
	ckptctl key new || :
	ckptd_start
	runs_version "$version"
	test "$(cat /sys/module/ckpt/version)" = "$version"
	dpkg -V ckpt-dkms
	memory_job_start

	echo "== an upgrade restarts the daemon, jobs run on, the configuration stays"
	cp "$config" /tmp/config
	dpkg -i /share/new.d/ckpt_*.deb
	cmp "$config" /tmp/config
	await "the new ckptd" 60 runs_version "$version.1"
	await "an epoch" 60 field_is_least epochs 1
	progress 3

	echo "== while a job runs nothing is removed"
	fails dpkg -r ckpt
	test "$(dpkg-query -W -f '${db:Status-Status}' ckpt)" = installed
	await "ckptd" 60 runs_version "$version.1"
	memory_job_finish

	echo "== removed: the configuration stays, and what is known of jobs"
	dpkg -r ckpt ckpt-dkms
	fails systemctl is-active ckptd
	test ! -e /usr/bin/ckptctl
	test -e "$config"
	test -d /var/lib/ckpt

	echo "== purged: the key stays"
	dpkg --purge ckpt ckpt-dkms 2>&1 | tee /tmp/purge
	grep -q "/etc/ckpt/key is kept" /tmp/purge
	test ! -e "$config"
	test ! -e /var/lib/ckpt
	test -s /etc/ckpt/key
	fails systemctl cat ckptd
}

set +e
(
	set -e
	node
) >/tmp/case 2>&1
status=$?
if [ $status != 0 ]; then
	tell
	journalctl --no-pager -u ckptd -n 40
else
	cat /tmp/case
fi
exit $status
