"""The Grafana dashboard and the Prometheus rules of the service: by Grafana's schema, and in a real Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from loopback import ROOT, ChatServer, Reply, running_server
from served import openai_client
from word_judge import CARD

from ontopic.config.alert_settings import AlertSettings
from ontopic.config.settings import EndpointSettings
from ontopic.endpoint.account import Account
from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.held_shares import held
from ontopic.monitoring.spending import JudgeCost, Spent
from ontopic.monitoring.standing import WindowLimits
from ontopic.monitoring.thumbs import Thumbs
from ontopic.monitoring.window import Counts, Drift, window_result
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Judged, Record, Verdict
from ontopic.state.workspace import Workspace
from ontopic.statistics.rates import rate
from ontopic.traffic.store import TrafficStore
from serving.process import ServedModel, Serving

DASHBOARD, RULES = ROOT / "serving/grafana-dashboard.json", ROOT / "serving/prometheus-rules.yaml"
PROMETHEUS, PROMTOOL = (shutil.which(name) or "" for name in ("prometheus", "promtool"))
MODEL, VERSION = "ontopic-gardening", "gpt-4o"
NAME = re.compile(r"ontopic_\w+")
NOW = datetime.now(UTC)
# Of an annotation and a variable, the schema leaves these to the plugin of the data source.
OF_THE_PLUGIN = {"step", "tagKeys", "titleFormat", "useValueForTime", "definition"}


def queries() -> list[tuple[str, str]]:
    """The title and the query of each of the dashboard's targets, its annotations included."""
    given = json.loads(DASHBOARD.read_text())
    found = [(panel["title"], each["expr"]) for panel in given["panels"] for each in panel.get("targets", [])]
    found += [(each["name"], each["expr"]) for each in given["annotations"]["list"]]
    return [(title, query.replace("$version", ".*")) for title, query in found]


def test_all_metrics_that_are_asked_for_are_in_the_sources() -> None:
    rules = [each["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for each in group["rules"]]
    names = {name for query in [*(query for _, query in queries()), *rules] for name in NAME.findall(query)}
    sources = "".join((ROOT / "serving" / name).read_text() for name in ("metrics.py", "window_metrics.py"))
    assert len(names) > 20
    for name in names:
        known = name.removesuffix("_total").removesuffix("_bucket").removeprefix("ontopic_window_")
        assert f'"{known}"' in sources, name


def test_the_dashboard_is_one_by_grafanas_schema() -> None:
    schema = pytest.importorskip("grafana_foundation_sdk.models.dashboard")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins

    register_default_plugins()
    given = json.loads(DASHBOARD.read_text())
    read = json.loads(json.dumps(schema.Dashboard.from_json(given), cls=JSONEncoder))
    assert set(_lost(given, read)) <= OF_THE_PLUGIN


def _lost(given: Any, read: Any) -> Iterator[str]:
    """The keys of what Grafana's own classes do not keep, or keep as something else."""
    if isinstance(given, dict):
        for key, value in given.items():
            if key not in read:
                yield from [key] if value not in ({}, [], None, "", False) else []
            else:
                yield from _lost(value, read[key]) if isinstance(value, dict | list) else [key] * (value != read[key])
    else:
        for one, other in zip(given, read, strict=True):
            yield from _lost(one, other) if isinstance(one, dict | list) else ["in a list"] * (one != other)


@pytest.mark.skipif(not PROMTOOL, reason="needs Prometheus (Debian: prometheus)")
def test_promtool_takes_the_rules() -> None:
    done = subprocess.run([PROMTOOL, "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def fill(state: Path) -> Workspace:
    """A closed window that is of concern in many ways, what judging cost, and an open alert."""
    workspace = Workspace(root=state)
    rows = [
        Record(
            question="How do I prune my roses in the spring?",
            answer="no",
            id=f"r{i}",
            registered_model=MODEL,
            model_version=VERSION,
            asked_at=NOW - timedelta(minutes=90) + timedelta(seconds=i),
            latency_s=1.5,
        )
        for i in range(120)
    ]
    verdicts = [
        Verdict(
            outcome="unjudged" if i < 10 else "pass" if i % 2 else "fail",
            score=None,
            explanation="",
            judge_id="words",
            in_scope=i % 3 > 0,
            declined=i % 2 > 0,
            cause="asleep" if i < 10 else None,
        )
        for i in range(120)
    ]
    with TrafficStore(workspace.traffic, MODEL) as traffic, WindowStore(workspace.windows, MODEL) as windows:
        traffic.add_many(rows)
        windows.put(rows, len(rows))
        (window,) = windows.holding([row.id for row in rows])
        windows.keep_verdicts({row.id: verdict for row, verdict in zip(rows, verdicts, strict=True)}, "words")
        result = window_result(
            Judged(records=rows, verdicts=verdicts),
            CARD,
            limits=WindowLimits(threshold=0.9),
            counts=Counts(n=120),
            drift=Drift(score=1e-9, detected=True, grown=[("taxes", 0.0, 0.4)], distance=0.4, level=0.01, n=120),
        )
        share = held([True] * 60 + [False] * 40, most=0.2, level=0.01)
        thumbs = Thumbs(liked=rate(2, 30), since=rate(2, 30), least=0.5)
        more = {"over_refusal": share, "leak": share, "slow": share, "thumbs": thumbs}
        more |= {"judge_cost": JudgeCost(day=Spent(usd=5.0, requests=120), most_usd=4.0)}
        windows.close_window(window, result.model_copy(update=more), now=NOW)
        judge: Any = type("Judge", (), {"id": "words", "account": Account(usd=0.0)})()
        with windows.spending.of(judge):
            judge.account.requests, judge.account.usd = 120, 5.0
    rules = [AlertSettings(name="leak", events=["leak"])]
    with Alerts(workspace.alerts, rules, policy=MODEL.removeprefix("ontopic-")) as alerts:
        alerts.event("leak", "w1", at=NOW, text="leak")
    return workspace


class Prometheus:
    """A running one, asked over HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **params: str) -> Any:
        found = httpx.get(f"{self.url}/api/v1/{path}", params=params, timeout=20, trust_env=False)
        assert found.status_code == 200, found.text
        return found.json()["data"]

    def query(self, query: str) -> list[Any]:
        result: list[Any] = self.get("query", query=query)["result"]
        return result

    def wait(self, query: str) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                if self.query(query):
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        raise AssertionError(f"nothing for {query}")


@contextmanager
def prometheus(folder: Path, served: ServedModel) -> Iterator[Prometheus]:
    """Reads the service's page with its key every two seconds."""
    host = served.base_url.removeprefix("http://").removesuffix("/v1")
    scrape = {"job_name": "ontopic", "static_configs": [{"targets": [host]}]}
    scrape |= {"authorization": {"credentials": served.api_key}}
    every = {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"}
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump({"global": every, "rule_files": [str(RULES)], "scrape_configs": [scrape]}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [PROMETHEUS, f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        found = Prometheus(f"http://127.0.0.1:{port}")
        found.wait('up{job="ontopic"} == 1')
        yield found
    finally:
        process.terminate()
        process.wait(30)


def ask(served: ServedModel, upstream: ChatServer) -> None:
    """Whole answers, streams, one that fails, and a thumb."""
    asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": "How do I prune my roses?"}]}
    with openai_client(served.base_url, served.api_key) as client:
        upstream.reply = lambda _: Reply(text="In the spring.", parts={"usage": {"prompt_tokens": 9}})
        raw = client.chat.completions.with_raw_response.create(**asked)
        record_id = raw.headers["x-ontopic-record-id"]
        headers = {"authorization": f"Bearer {served.api_key}"}
        url = f"{served.base_url}/feedback"
        httpx.post(url, json={"record_id": record_id, "thumb": "up"}, headers=headers, trust_env=False)
        list(client.chat.completions.create(**asked, stream=True))
        upstream.reply = lambda _: Reply(status=500, body=b"broken")
        with pytest.raises(Exception, match="502"):
            client.chat.completions.create(**asked)


@pytest.mark.slow
@pytest.mark.skipif(not PROMETHEUS, reason="needs Prometheus (Debian: prometheus)")
def test_each_panel_and_rule_has_data_in_a_real_prometheus(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "state")
    with running_server() as upstream:
        behind = EndpointSettings(model=VERSION, base_url=upstream.url, max_retries=0)
        serving = Serving(
            upstream=behind,
            model_version=VERSION,
            model_name=MODEL,
            traffic=workspace.traffic,
            state=workspace.root,
        )
        with ServedModel(serving) as served, prometheus(tmp_path, served) as found:
            ask(served, upstream)
            found.wait('increase(ontopic_chats_total{outcome="failed"}[1m]) > 0')
            found.wait("ontopic:failed:low15m")
            for _, query in queries():
                found.wait(query)
            rules = [rule for group in found.get("rules")["groups"] for rule in group["rules"]]
            assert {rule["name"]: rule["health"] for rule in rules} == {rule["name"]: "ok" for rule in rules}
            firing = {rule["name"] for rule in rules if rule.get("state") == "firing"}
            asked = ("OverRefusal", "Leak", "Drift", "Slow", "Unjudged", "Disliked", "JudgeCost")
            assert firing == {f"OnTopic{name}" for name in asked}
            (spent,) = found.query("ontopic_judge_usd_total")
            assert spent["value"][1] == "5"
            scores = found.query('ontopic_window_share{share="guardrail_score"}')
            assert {each["metric"]["bound"] for each in scores} == {"value", "low", "high"}
            assert {each["metric"]["version"] for each in scores} == {VERSION}
