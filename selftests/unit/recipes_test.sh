#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The recipes for packages and images are read without complaint, and name what is there. (The test packages builds and installs
# Debian's packages, and runs provision.)
set -eu

failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "== RPM"
make -s rpm BUILD="$work" RPMBUILD='-bs --nodeps' >"$work/log" 2>&1 || { cat "$work/log"; failed=1; }
[ -n "$(find "$work/rpm/SRPMS" -name 'ckpt-*.src.rpm')" ]
[ "$(rpmspec -q --qf '%{NAME} %{ARCH} ' "$work/rpm/SPECS/ckpt.spec")" = "ckpt x86_64 ckpt-dkms noarch " ]

echo "== what is installed is what the spec packs"
make -s install BUILD="$BUILD" DESTDIR="$work/root" >/dev/null
find "$work/root" -type f | sed "s|^$work/root||" | sort >"$work/installed"
# As rpm would: its macros, directories whole, man pages perhaps compressed.
rpmspec -P "$work/rpm/SPECS/ckpt.spec" | awk '/^%files$/ { on = 1; next } /^%/ && !/^%(config|dir|license|doc)/ { on = 0 }
	on && /\// && !/^%dir/ { print $NF }' | sed 's|^%.*) *||' >"$work/packed"
while read -r path; do
	while read -r pattern; do
		# shellcheck disable=SC2254 # a glob
		case $path in
		$pattern | "$pattern"*) continue 2 ;;
		esac
	done <"$work/packed"
	echo "the spec lacks $path"
	failed=1
done <"$work/installed"
[ "$(wc -l <"$work/packed")" -ge 10 ]

echo "== images"
python3 - <<'PYTHON' || failed=1
import json, os, yaml

component = yaml.safe_load(open("packaging/ami/component.yaml"))
assert component["schemaVersion"] == 1.0 and [p["name"] for p in component["phases"]] == ["build", "test"]
for phase in component["phases"]:
    for step in phase["steps"]:
        assert step["action"] in ("S3Download", "ExecuteBash") and step["inputs"], step
packer = json.load(open("packaging/ami/ckpt.pkr.json"))
scripts = [p["shell"]["script"] for p in packer["build"]["provisioner"] if "script" in p.get("shell", {})]
assert scripts and all(os.access(script, os.X_OK) for script in scripts), scripts
for name in packer["variable"]:
    assert "${var.%s}" % name in json.dumps(packer), name
PYTHON
sh -n packaging/ami/provision || failed=1

echo "== the unit"
sed "s|/usr/sbin/ckptd|/bin/true|;s|/usr/bin/ckptctl|/bin/true|;/^Documentation/d" packaging/ckptd.service >"$work/ckptd.service"
complaints=$(systemd-analyze verify "$work/ckptd.service" 2>&1 | grep 'ckptd\.service' || :)
[ -z "$complaints" ] || { echo "$complaints"; failed=1; }
exit $failed
