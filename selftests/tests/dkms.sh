#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: DKMS builds, signs, installs and removes the module, which then loads; the Makefile calls it with the right files
# KERNELS: all
# RUN: host --timeout 900
# DKMS works in the suite's root file system on this machine, where a compiler is ten times faster than in a guest.
set -eu
cd "$(dirname "$0")/../.."
boot=$(selftests/vm/build "$KERNEL")
work=$(mktemp -d -t ckpt-dkms.XXXXXX)
trap 'rm -rf "$work"' EXIT
mkdir "$work/share" "$work/root"

cat >"$work/in-root" <<'SCRIPT'
set -eux
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root
source=$(echo /usr/src/ckpt-*)
version=${source#/usr/src/ckpt-}

dkms install "ckpt/$version" -k "$RELEASE"
dkms status "ckpt/$version" | grep "$RELEASE.*installed"
modinfo -k "$RELEASE" ckpt
test "$(modinfo -k "$RELEASE" -F version ckpt)" = "$version"
for field in description license vermagic srcversion filename; do test -n "$(modinfo -k "$RELEASE" -F $field ckpt)"; done
# Signed with the machine's own key, that its owner enrolls where Secure Boot asks for it.
test -n "$(modinfo -k "$RELEASE" -F sig_id ckpt)"
openssl x509 -inform der -in /var/lib/dkms/mok.pub -noout -subject
cp "$(modinfo -k "$RELEASE" -F filename ckpt)" /share
echo "$version" >/share/version

dkms remove "ckpt/$version" --all
if modinfo -k "$RELEASE" ckpt; then exit 1; fi
test -z "$(dkms status "ckpt/$version")"

# A kernel that it was not tested on is left alone.
bash -c '. "$1/dkms.conf" && [[ ! 99.1.0-amd64 =~ $BUILD_EXCLUSIVE_KERNEL ]]' bash "$source"
SCRIPT
RELEASE=$(cat "$boot/version")
export RELEASE
# In a mount namespace of its own: the root with a tmpfs over it.
# shellcheck disable=SC2016 # $1 is for the inner shell
unshare --mount --propagation private sh -euc '
	mount -t tmpfs -o mode=755 tmpfs "$1/root"
	mkdir "$1/root/upper" "$1/root/work" "$1/root/all"
	mount -t overlay -o "lowerdir=$2,upperdir=$1/root/upper,workdir=$1/root/work" overlay "$1/root/all"
	make dkms-install "DESTDIR=$1/root/all"
	mkdir "$1/root/all/share"
	mount --bind "$1/share" "$1/root/all/share"
	mount -t proc proc "$1/root/all/proc"
	mount --rbind /dev "$1/root/all/dev"
	exec chroot "$1/root/all" /bin/sh -s <"$1/in-root"
' dkms "$work" "$(dirname "$(readlink -f "$boot/root.img")")/tree"

# shellcheck disable=SC2016 # for the guest
selftests/vm/run "$KERNEL" --share "$work/share" -- sh -euxc '
	rmmod ckpt
	insmod /share/ckpt.ko*
	test "$(cat /sys/module/ckpt/version)" = "$(cat /share/version)"
	test -c /dev/ckpt
	rmmod ckpt'
