"""Watching goes on where the judge's server refuses key or quota: windows are unjudged, and it is said once."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from loopback import ROOT, ChatServer, Reply

from ontopic.config.policy import load_policy
from ontopic.config.settings import load_settings
from ontopic.endpoint import endpoint
from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Record
from ontopic.registry.tracking import open_tracking
from ontopic.state.workspace import open_workspace
from ontopic.traffic.store import TrafficStore
from ontopic.watch.watcher import Watcher

START, HOUR = datetime(2026, 3, 1, tzinfo=UTC), timedelta(hours=1)
WRONG_KEY = Reply("Incorrect API key provided.", status=401)


def grade(request: dict[str, Any]) -> Reply:
    verdict = "fail" if "BAD" in request["messages"][-1]["content"] else "pass"
    return Reply(json.dumps({"explanation": "So.", "in_scope": True, "declined": False, "verdict": verdict}))


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def config(tmp_path: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with an LLM judge and an alert, and a policy with 40 labelled records."""
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    questions = [{"question": f"How do I water {i} roses?", "in_scope": True, "split": "calibration"} for i in range(9)]
    write(tmp_path / "questions.jsonl", questions)
    kinds = [("BAD", "fail"), ("fine", "pass")] * 20
    records = [{"question": f"question {i}?", "answer": a, "label": b} for i, (a, b) in enumerate(kinds)]
    write(tmp_path / "records.jsonl", [row | {"split": "calibration"} for row in records])
    policy = yaml.safe_load((ROOT / "configs/policies/gardening.yaml").read_text())
    policy |= {"name": "tiny", "questions": "questions.jsonl", "records": "records.jsonl"}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
    settings = yaml.safe_load((ROOT / "configs/gardening.yaml").read_text())
    judge = {"kind": "openai", "model": "judge-1", "base_url": chat_server.url, "concurrency": 4}
    settings |= {"policy": "policy.yaml", "judge": judge, "judge_prompts": str(ROOT / "configs/judge_prompts")}
    settings["alerts"] = [{"name": "unjudged", "events": ["unjudged"]}]
    settings["monitoring"] |= {"window": "1h", "window_records": 10}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "config.yaml"


def test_watching_goes_on_where_the_judge_is_refused(
    config: Path, chat_server: ChatServer, state_before: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, policy = load_settings(config), load_policy(config.parent / "policy.yaml")
    workspace, said, hours = open_workspace(config.parent / "mine"), list[str](), [0]
    shutil.copy(state_before / "mlflow.db", workspace.root)  # to make one anew takes MLflow 6 s
    open_tracking(workspace, policy.registered_model)
    watcher = Watcher(
        settings,
        policy,
        workspace=workspace,
        improve=lambda wanted: pytest.fail("nothing is to be trained"),
        tell=said.append,
        now=lambda: START + hours[0] * HOUR + HOUR / 2,
        since=START,
    )

    def an_hour(n: int) -> list[str]:
        """The states of the windows that are closed after the next hour, of 200 records."""
        at = START + hours[0] * HOUR
        rows = [
            Record(question=f"q {hours[0]} {i}", answer="fine", id=f"{hours[0]}-{i}", model_version="1", asked_at=at)
            for i in range(200)
        ]
        with TrafficStore(workspace.traffic, policy.registered_model) as traffic:
            traffic.add_many(rows)
        hours[0] += n
        return [window.result.status for window in watcher.turn().closed if window.result]

    # No card yet: the window stays due, and what is wrong is said once.
    chat_server.reply = lambda request: WRONG_KEY
    assert an_hour(1) == []
    assert watcher.turn().closed == []
    told = [line for line in said if "Nothing can be judged" in line]
    assert len(told) == 1
    assert f"{chat_server.url} does not take the key in OPENAI_API_KEY (401: Incorrect API key" in told[0]
    assert len(chat_server.requests) <= 4
    # The key is mended: it is tried again after a while, and the window that was due is closed.
    monkeypatch.setattr(endpoint.time, "monotonic", lambda real=endpoint.time.monotonic: real() + 100)
    chat_server.reply = grade
    assert [window.result.n for window in watcher.turn().closed if window.result] == [200]
    # Refused with a card: the window is closed, unjudged.
    chat_server.reply = lambda request: WRONG_KEY
    asked = len(chat_server.requests)
    an_hour(1)
    with WindowStore(workspace.windows, policy.registered_model) as windows:
        newest = windows.closed(1)[0]
    assert newest.result is not None
    assert (newest.result.sampled, newest.result.unjudged_share) == (200, 1.0)
    assert len(chat_server.requests) - asked <= 4
    assert sum("Nothing can be judged" in line for line in said) == 1
    with Alerts(workspace.alerts, settings.alerts, policy=policy.name) as alerts:
        assert [alert for alert in alerts.history(9) if "100% of the records are unjudged" in alert.text]
    watcher.close()
