#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# DESCRIPTION: ckptbench track measures each mechanism against each peer, and none misses a written page
# KERNELS: all
# RUN: guest
set -eu
modprobe ckpt
ckptbench track --mib 4,32 --repeat 2 --json >/tmp/track.json
python3 - <<'EOF'
import itertools
import json

report = json.load(open("/tmp/track.json"))
cells = report["cells"]
print(report["environment"])
for name in "kernel", "machine", "cpu", "cpus", "module_version", "page_bytes":
    assert report["environment"][name], name
measured = {c["mechanism"] for c in cells}
assert measured - {"uffd-wp", "procfs"} == {"soft-dirty", "hash"}, measured
for mechanism in measured - {"uffd-wp"}:
    for key in itertools.product((4 << 20, 32 << 20), (0, 0.01, 1), (False, True)):
        found = [c for c in cells if (c["mechanism"], c["peer"], c["mapped_bytes"], c["density"], c["thp"]) ==
                 (mechanism, "pagemap+clear_refs", *key)]
        assert len(found) == 1, (mechanism, key, found)
for cell in cells:
    assert cell["missed_pages"] == 0, cell
    assert cell["median_us"] > 0 and cell["peer_median_us"] > 0 and cell["samples"] == 2, cell
    assert abs(cell["ratio"] - cell["peer_median_us"] / cell["median_us"]) < 0.01 * cell["ratio"], cell
scans = [c for c in cells if c["peer"] == "PAGEMAP_SCAN"]
assert bool(scans) == any(c["mechanism"] == "uffd-wp" for c in cells), "uffd-wp and PAGEMAP_SCAN need the same kernel"
assert {row["mechanism"] for row in report["first_write"]} >= {"soft-dirty", "pagemap+clear_refs"}
assert report["module_memory"][0]["mechanism"] == "soft-dirty"
print(len(cells), "cells, nothing missed")
EOF
