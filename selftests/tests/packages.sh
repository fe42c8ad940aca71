#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: the Debian packages: built from what they say they need, lintian, DKMS over kernel and package changes, a node's life
# KERNELS: first
# RUN: host --timeout 1200
# They are built, and DKMS works, in the suite's root on this machine, where a compiler is ten times faster than in a guest.
set -eu

cd "$(dirname "$0")/../.."
selftests/prepare packages
boot=$(selftests/vm/build "$KERNEL")
work=$(mktemp -d -t ckpt-packages.XXXXXX)
trap 'rm -rf "$work"' EXIT
mkdir "$work/share" "$work/root"
make -s source
version=$(basename build/ckpt-*.tar.gz .tar.gz)
version=${version#ckpt-}
tar -C "$work/share" -xzf "build/ckpt-$version.tar.gz"
cp -r "$work/share/ckpt-$version" "$work/share/newer"
sed -i "s/\(CKPT_VERSION \)\"$version\"/\1\"$version.1\"/" "$work/share/newer/kmod/internal.h"

cat >"$work/in-root" <<'SCRIPT'
set -eux
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root DEBIAN_FRONTEND=noninteractive
cd /share
# All that is needed is there, but for C++, that build-essential asks for.
dpkg-checkbuilddeps -I "ckpt-$VERSION/packaging/debian/control"
# The newer one is only there to be newer.
options=
for tree in "ckpt-$VERSION" newer; do
	DEB_BUILD_OPTIONS="parallel=$(nproc) $options" make -C "$tree" deb DEB_OPTIONS=-d >"$tree.log" 2>&1 || { tail -n 30 "$tree.log"; exit 1; }
	options=noopt
done
mv "ckpt-$VERSION/build/deb" old.d
mv newer/build/deb new.d
old=$VERSION
new=$VERSION.1

state() { dkms status ckpt | sed 's/, x86_64//;s/ (.*//' | sort | tr '\n' ';'; }
installed() { test "$(modinfo -k "$1" -F version ckpt)" = "$2"; } # RELEASE VERSION

# A node with one kernel.
later=$(find /lib/modules -mindepth 1 -maxdepth 1 -name '[0-9]*' ! -name "$RELEASE" -printf '%f\n' | head -n 1)
mount -t tmpfs tmpfs "/lib/modules/$later"
dpkg -i old.d/ckpt-dkms_*.deb
test "$(state)" = "ckpt/$old, $RELEASE: installed;"
installed "$RELEASE" "$old"
test -n "$(modinfo -k "$RELEASE" -F sig_id ckpt)"
# Another kernel is installed: what its package calls then.
umount "/lib/modules/$later"
/etc/kernel/postinst.d/dkms "$later"
installed "$later" "$old"
installed "$RELEASE" "$old"
# And removed again.
/etc/kernel/prerm.d/dkms "$later"
test "$(state)" = "ckpt/$old, $RELEASE: installed;"
# The package is upgraded: one version, and it is the new one, for all kernels, as none of them runs here.
dpkg -i new.d/ckpt-dkms_*.deb
installed "$RELEASE" "$new"
installed "$later" "$new"
test -z "$(dkms status "ckpt/$old")"
test ! -e "/usr/src/ckpt-$old"
# What it builds stays no longer than the package.
dpkg --purge ckpt-dkms
test -z "$(state)"
test -z "$(find /usr/src /var/lib/dkms /lib/modules -name 'ckpt*')"
SCRIPT
RELEASE=$(cat "$boot/version")
VERSION=$version
export RELEASE VERSION
# In a mount namespace of its own: the root with a tmpfs over it.
# shellcheck disable=SC2016 # $1 is for the inner shell
unshare --mount --propagation private sh -euc '
	mount -t tmpfs -o mode=755 tmpfs "$1/root"
	mkdir "$1/root/upper" "$1/root/work" "$1/root/all"
	mount -t overlay -o "lowerdir=$2,upperdir=$1/root/upper,workdir=$1/root/work" overlay "$1/root/all"
	mkdir "$1/root/all/share"
	mount --bind "$1/share" "$1/root/all/share"
	mount -t proc proc "$1/root/all/proc"
	mount --rbind /dev "$1/root/all/dev"
	exec chroot "$1/root/all" /bin/sh -s <"$1/in-root"
' deb "$work" "$(dirname "$(readlink -f "$boot/root.img")")/tree"

rm -rf "$work/share/ckpt-$version" "$work/share/newer"
lintian --fail-on error,warning --tag-display-limit 0 --allow-root "$work"/share/*.d/*.changes
cp packaging/ami/provision "$work/share"
selftests/vm/run "$KERNEL" --systemd --timeout 900 --share "$work/share" -- /usr/lib/ckpt/tests/packages_node.sh "$version"
