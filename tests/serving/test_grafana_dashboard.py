"""The Grafana dashboard that comes with the service."""

from __future__ import annotations

import json
import re

from loopback import ROOT

NAME = re.compile(r"ontopic_\w+")


def test_the_grafana_dashboard_asks_for_metrics_that_there_are() -> None:
    text = (ROOT / "serving/grafana-dashboard.json").read_text()
    names = {name for panel in json.loads(text)["panels"] for t in panel["targets"] for name in NAME.findall(t["expr"])}
    source = (ROOT / "serving/metrics.py").read_text()
    assert len(names) > 8
    for name in names:
        assert f'"{name.removesuffix("_total").removesuffix("_bucket")}"' in source
