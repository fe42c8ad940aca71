#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: DKMS builds, signs, installs and removes the module; the Makefile calls it with the right files
# KERNELS: first
# RUN: guest --mem 1536 --timeout 1200
set -eux

# The lab's own module, and what `make install` and `make dkms-install DESTDIR=` of the lab put there.
release=$(uname -r)
rmmod ckpt
rm -r "/lib/modules/$release/updates"
depmod
source=$(echo /usr/src/ckpt-*)
version=${source#/usr/src/ckpt-}

dkms install "ckpt/$version"
dkms status "ckpt/$version" | grep "$release.*installed"
modinfo ckpt
test "$(modinfo -F version ckpt)" = "$version"
for field in description license vermagic srcversion filename; do test -n "$(modinfo -F "$field" ckpt)"; done
# Signed with the machine's own key, that its owner enrolls where Secure Boot asks for it.
test -n "$(modinfo -F sig_id ckpt)"
openssl x509 -inform der -in /var/lib/dkms/mok.pub -noout -subject
modprobe ckpt
test "$(cat /sys/module/ckpt/version)" = "$version"
test -c /dev/ckpt
rmmod ckpt

dkms remove "ckpt/$version" --all
if modinfo ckpt; then exit 1; fi
test -z "$(dkms status "ckpt/$version")"

# A kernel that it was not tested on is left alone.
bash -c '. "$1/dkms.conf" && [[ ! 99.1.0-amd64 =~ $BUILD_EXCLUSIVE_KERNEL ]]' bash "$source"
