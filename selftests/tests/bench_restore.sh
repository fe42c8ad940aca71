#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: ckptbench restore restores what it saved, and criu its own chain, and compares them
# KERNELS: first
# RUN: guest --disk 1024
set -eu
mkfs.ext4 -q /dev/vda
mkdir -p /tmp/disk
mount /dev/vda /tmp/disk
ckptbench restore --mib 32 --repeat 2 --directory /tmp/disk/bench --json >/tmp/restore.json
python3 - <<'EOS'
import json

report = json.load(open("/tmp/restore.json"))
assert report["benchmark"] == "restore" and report["environment"]["mib"] == 32, report["environment"]
rows = {row["case"]: row for row in report["cells"]}
assert len(rows) == 5, rows
for what, row in rows.items():
    assert row["runs"] == 2 and row["min"] > 0, row
    print(what, row["median"], row["unit"])
EOS
