"""Feedback: kept with the traffic, given over HTTP, and shown to whoever labels."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import smol
from typer.testing import CliRunner

import run
from ontopic.config.policy import Policy
from ontopic.data.drawing import drawable
from ontopic.data.labels import LabelStore
from ontopic.errors import UserError
from ontopic.records import Feedback, Record
from ontopic.traffic.store import TrafficStore
from serving.process import ServedModel

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_the_newest_of_one_key_counts(store_at: Path | str) -> None:
    with TrafficStore(store_at) as traffic:
        traffic.add(Record(question="q?", answer="a", id="r1", asked_at=NOON))
        given = Feedback(
            record_id="r1", thumb="down", comment="call me on +44 20 7946 0958", by="website", given_at=NOON
        )
        assert traffic.add_feedback(given)
        assert traffic.add_feedback(
            Feedback(record_id="r1", thumb="up", comment="", by="branch", given_at=NOON + timedelta(1))
        )
        assert not traffic.add_feedback(Feedback(record_id="r2", thumb="up"))
        newest, first = traffic.feedback()
        assert (newest.by, newest.thumb) == ("branch", "up")
        assert (first.thumb, "7946" in first.comment) == ("down", False)
        assert traffic.add_feedback(
            Feedback(record_id="r1", thumb="up", comment="it works now\0", by="website", given_at=NOON + timedelta(2))
        )
        assert [(each.by, each.thumb) for each in traffic.feedback()] == [("website", "up"), ("branch", "up")]
        assert traffic.prune(keep=0) == 1
        assert traffic.feedback() == []


def test_feedback_over_http(model_folder: Path, tmp_path: Path) -> None:
    with ServedModel(smol(model_folder, tmp_path, max_new_tokens=4)) as served:
        headers = {"authorization": f"Bearer {served.api_key}"}

        def post(path: str, body: Any, *, key: bool = True) -> httpx.Response:
            given = headers if key else {}
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            url = f"{served.base_url}/{path}"
            return httpx.post(url, content=content, headers=given, timeout=60, trust_env=False)

        asked = post("chat/completions", {"model": "smol", "messages": [{"role": "user", "content": "hello"}]})
        record_id = asked.headers["x-ontopic-record-id"]
        good = {"record_id": record_id, "thumb": "down", "comment": "=HYPERLINK(1) <script>"}
        assert post("feedback", good).json()["thumb"] == "down"
        assert post("feedback", good, key=False).status_code == 401
        for wrong, param, status in (
            (good | {"record_id": "unknown"}, "record_id", 404),
            (good | {"record_id": "x" * 65}, "record_id", 400),
            ({"thumb": "up"}, "record_id", 400),
            (good | {"thumb": "sideways"}, "thumb", 400),
            (good | {"thumb": ["up"]}, "thumb", 400),
            (good | {"comment": "x" * 2001}, "comment", 400),
            (good | {"comment": "\ud800"}, "comment", 400),
            (good | {"comment": 3}, "comment", 400),
            (good | {"correction": "x" * 20_001}, "correction", 400),
            (good | {"correction": "\0"}, "correction", 400),
            (good | {"correction": ["x"]}, "correction", 400),
            (good | {"verdict": "pass"}, "verdict", 400),
            (good | {"\ud800": 1}, "\\ud800", 400),
            (b"[1]", None, 400),
            (b"\xff", None, 400),
        ):
            response = post("feedback", wrong)
            assert (response.status_code, response.json()["error"]["param"]) == (status, param), wrong
        right = "Öffne die App.\nThen [card] <b>lock</b> it: +44 20 7946 0958"
        assert post("feedback", good | {"correction": right}).status_code == 200
        with TrafficStore(tmp_path / "traffic.db") as traffic:
            (kept,) = traffic.feedback()
        assert (kept.record_id, kept.thumb, kept.comment) == (record_id, "down", "=HYPERLINK(1) <script>")
        assert kept.correction == right.replace("+44 20 7946 0958", "[phone]")
        root = served.base_url.removesuffix("/v1")
        page = httpx.get(f"{root}/metrics", headers=headers, timeout=60, trust_env=False).text
        assert 'ontopic_thumbs_total{corrected="yes",thumb="down"} 1.0' in page
        assert 'ontopic_thumbs_total{corrected="no",thumb="down"} 1.0' in page
        schema = httpx.get(f"{root}/openapi.json", headers=headers, timeout=60, trust_env=False).json()
        assert "correction" in schema["components"]["schemas"]["Feedback"]["properties"]


def test_a_labeller_sees_it_and_decides(tmp_path: Path, banking: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    def label(keys: str) -> Any:
        return CliRunner().invoke(run.app, ["label", "--by", "feedback", "--state", str(tmp_path)], input=keys)

    with TrafficStore(tmp_path / "traffic.db", banking.registered_model) as traffic:
        traffic.add(Record(question="no thumb?", answer="a", id="none", asked_at=NOON))
    assert isinstance(label("").exception, UserError)
    monkeypatch.setattr("ontopic.judges.cards.calibration.card_of", lambda *_, **__: "the card")
    monkeypatch.setattr("ontopic.commands.labels.judge_of", lambda *_: None)
    with TrafficStore(tmp_path / "traffic.db", banking.registered_model) as traffic:
        for number in range(8):
            traffic.add(Record(question=f"question {number}?", answer="I'm sorry.", id=f"r{number}", asked_at=NOON))
            traffic.add_feedback(
                Feedback(record_id=f"r{number}", thumb="down", comment="\x1b[31mwrong", by="website", given_at=NOON)
            )
    done = label("t\nf\ny\nq\n")
    assert "thumb down (website) \\x1b[31mwrong" in done.output
    assert "Give one of p, f, c, s, u, q." in done.output  # nobody proposed a right answer
    labels = LabelStore(tmp_path / "labels" / "banking.jsonl")
    (row,) = labels.labels()
    assert (row.label, row.split, row.in_scope, row.correction) == ("fail", "train", True, "")
    record = Record(question=row.question, answer=row.answer)
    assert drawable([record], "random") == []  # so it is never in the card
    with TrafficStore(tmp_path / "traffic.db", banking.registered_model) as traffic:
        for number in range(8):
            right = f"\x1b[2JLock card {number} in the app."
            traffic.add_feedback(Feedback(record_id=f"r{number}", thumb="down", by="branch", correction=right))
    done = label("t\ny\nc Call us on +44 20 7946 0958.\ny\nq\n")
    assert "right answer (branch): \\x1b[2JLock card" in done.output
    taken, written = labels.labels()[1:]
    assert taken.correction == f"\x1b[2JLock card {taken.record_id.removeprefix('r')} in the app."
    assert written.correction == "Call us on [phone]."
