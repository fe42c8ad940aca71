#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The example alerts and the dashboard are well-formed, and ask for metrics and labels that ckptd writes.
set -eu

"$BUILD/ckptd" --help-metrics | sed -n 's/^  \([a-z_]*\) .*/\1/p' | python3 -c '
import json, re, sys, yaml

metrics = set(sys.stdin.read().split())
assert len(metrics) > 20, metrics
rules = [rule for group in yaml.safe_load(open("packaging/prometheus/alerts.yml"))["groups"] for rule in group["rules"]]
board = json.load(open("packaging/prometheus/dashboard.json"))
panels = board["panels"]
variables = {variable["name"] for variable in board["templating"]["list"]}

asked = [rule["expr"] for rule in rules]
asked += [target["expr"] for panel in panels for target in panel["targets"]]
asked += [variable["query"] for variable in board["templating"]["list"] if variable["type"] == "query"]
assert len(rules) >= 5 and len(panels) >= 10 and all(asked)
for expression in asked:
    names = set(re.findall(r"\bckpt_[a-z_]+", expression))
    assert names <= metrics, (expression, names - metrics)
    assert set(re.findall(r"\$([a-z]+)", expression)) <= variables, expression
    # What only makes sense for what counts up.
    for name in re.findall(r"(?:rate|increase)\(([a-z_]+)", expression):
        assert name.endswith("_total"), expression
for rule in rules:
    assert rule["labels"]["severity"] in ("info", "warning", "critical"), rule
    assert set(re.findall(r"\$labels\.([a-z_]+)", json.dumps(rule))) <= {"instance", "job_id", "class"}, rule
assert len({panel["id"] for panel in panels}) == len(panels)
'
