"""The index page: what it shows is what is stored, and only who holds the token decides there."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from bank import Bank, open_bank
from pages import HOSTILE
from starlette.testclient import TestClient

from ontopic.commands.index_app import Index, app_of, read_report
from ontopic.commands.index_state import index_state
from ontopic.commands.options import Project
from ontopic.commands.tool_pages import Link, ToolPage
from ontopic.monitoring.alerts import Alerts
from ontopic.watch.actions import Action, ActionStore

HERE = {"Origin": "http://127.0.0.1:5000"}
NAME = "ontopic-banking"


@pytest.fixture
def bank(state_before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bank:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return open_bank(state_before, tmp_path)


@pytest.fixture
def index(bank: Bank) -> Index:
    tools = [
        ToolPage(
            name="MLflow", what="runs", links=[Link(text="Experiment", url="http://127.0.0.1:5001/#/experiments/1")]
        ),
        ToolPage(name="ZenML", what="pipelines", state="absent", said="its server is not installed"),
    ]
    return Index(Project(bank.settings, bank.policy, bank.workspace), port=5000, tools=tools)


@pytest.fixture
def client(index: Index) -> Iterator[TestClient]:
    with TestClient(app_of(index), base_url="http://127.0.0.1:5000", follow_redirects=False) as client:
        yield client


def given(client: TestClient, index: Index, **changed: str) -> dict[str, str]:
    """The form as the page draws it, filled in."""
    page = client.get("/").text
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page))
    return hidden | {"by": "bob", "why": "read the page", "token": index.token, "decision": "approve"} | changed


def said(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.split("<main")[1])).split())


def test_it_shows_where_it_stands(client: TestClient, index: Index, bank: Bank) -> None:
    page = client.get("/")
    assert page.status_code == 200
    text = said(page.text)
    assert "Version 1 is the champion" in text
    assert "MLflow starts …" in text and "its server is not installed" in text
    assert "waits for approval" not in text
    index.update("MLflow", state="ready")
    assert 'href="http://127.0.0.1:5001/#/experiments/1"' in client.get("/").text
    bank.workspace.reports.mkdir()
    for name, listed in (
        (f"gate-{NAME}-version-1-against-0.html", True),
        ("gate-ontopic-travel-version-1.html", False),
    ):
        (bank.workspace.reports / name).touch()
        assert (f'href="reports/{name}"' in client.get("/").text) is listed


def test_the_page_to_read_first_is_the_gates(bank: Bank) -> None:
    bank.workspace.reports.mkdir()
    names = [f"gate-{NAME}-version-2-against-1{more}.html" for more in ("", "-evidently")]
    for name in (*names, f"gate-{NAME}-version-2-against-11.html"):
        (bank.workspace.reports / name).touch()
    state = index_state(Project(bank.settings, bank.policy, bank.workspace))
    found = state.gate_page("2", "1")
    assert found and found.name == names[0]
    assert state.gate_page("1", "2") is None


def test_what_changes_is_news_and_nothing_else_is(client: TestClient, bank: Bank) -> None:
    before = client.get("/stamp").text
    assert f'data-stamp="{before}"' in client.get("/").text
    assert client.get("/stamp").text == before
    bank.wait()
    assert client.get("/stamp").text != before


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_a_decision_with_the_token_is_the_commands(client: TestClient, index: Index, bank: Bank, decision: str) -> None:
    bank.wait()
    assert "Version 2 waits for approval" in said(client.get("/").text)
    done = client.post("/decide", data=given(client, index, decision=decision), headers=HERE)
    assert (done.status_code, done.headers["location"]) == (303, "/")
    assert bank.registry.champion() == ("2" if decision == "approve" else "1")
    entry = next(each for each in bank.record.entries() if each.kind in ("approval", "rejection"))
    assert (entry.by, entry.why, bool(entry.facts["account"])) == ("bob", "read the page", True)
    told = "is the champion in place of 1, approved by bob" if decision == "approve" else "is rejected by bob"
    assert told in said(client.get("/").text)


REFUSED: list[tuple[dict[str, str], dict[str, str], int, str]] = [
    ({"token": "guessed"}, HERE, 403, "the token is not the one"),
    ({"token": "ö"}, HERE, 403, "the token is not the one"),
    ({"token": ""}, HERE, 403, "the token is not the one"),
    ({"by": "ann"}, HERE, 409, "ann trained version 2 and cannot be its only approver"),
    ({"why": "  "}, HERE, 409, "give your name, and a reason"),
    ({"decision": "delete"}, HERE, 409, "one approves or rejects"),
    ({"waiting": "0" * 64}, HERE, 303, ""),
    ({"version": "1"}, HERE, 303, ""),
    ({"more": "x"}, HERE, 400, "not the form"),
    ({"why": "x" * 30_000}, HERE, 400, "not the form"),
    ({}, {"Origin": "http://evil.example"}, 403, "another site"),
    ({}, {"Origin": "http://127.0.0.1:5001"}, 403, "another site"),
    ({}, {"Origin": "null"}, 403, "another site"),
    ({}, {}, 403, "another site"),
    ({}, {"Sec-Fetch-Site": "cross-site"}, 403, "another site"),
    ({}, HERE | {"Host": "evil.example:5000"}, 421, "another name"),
]


def test_nothing_else_decides(client: TestClient, index: Index, bank: Bank) -> None:
    bank.wait()
    form = given(client, index)
    for changed, headers, status, told in REFUSED:
        done = client.post("/decide", data=form | changed, headers=headers)
        assert (done.status_code, told in done.text) == (status, True), (changed, headers, done.text)
        if status in (403, 409) and "<main" in done.text:  # what was typed is not lost; the token is not sent back
            assert f'name="by" value="{(form | changed)["by"]}"' in done.text and index.token not in done.text
    assert (bank.kinds(), bank.registry.champion()) == (["gate", "waiting"], "1")


def test_a_file_of_another_kind_is_no_form(client: TestClient, index: Index, bank: Bank) -> None:
    bank.wait()
    form = given(client, index)
    assert client.post("/decide", json=form, headers=HERE).status_code == 400
    assert client.post("/decide", files={"x": b"x"}, headers=HERE).status_code == 400
    assert client.get("/decide").status_code == 405
    assert bank.kinds() == ["gate", "waiting"]


def test_what_was_seen_is_what_is_approved(client: TestClient, index: Index, bank: Bank) -> None:
    bank.wait()
    form = given(client, index)
    bank.wait()  # another gate ran after the page was drawn
    assert client.post("/decide", data=form, headers=HERE).status_code == 303
    assert bank.registry.champion() == "1"
    assert "waits no longer: version 2" in said(client.get("/").text)


def test_every_answer_is_closed_to_other_sites(client: TestClient) -> None:
    for path in ("/", "/life", "/stamp", "/reports/none.html", "/nothing", "/decide"):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        for host in ("rebound.example", "127.0.0.1:5001", "127.0.0.1"):
            assert client.get(path, headers={"Host": host}).status_code == 421


def test_reports_run_in_a_sandbox(client: TestClient, bank: Bank) -> None:
    reports = bank.workspace.reports
    reports.mkdir()
    others, ours = reports / f"window-{NAME}-others.html", reports / f"window-{NAME}-ours.html"
    others.write_text("<html><script>1</script></html>")
    ours.write_text('<!doctype html><head><meta name="generator" content="OnTopic">')
    for page, runs in ((others, True), (ours, False)):
        answer = client.get(f"/reports/{page.name}")
        policy = answer.headers["content-security-policy"]
        assert (answer.status_code, answer.text) == (200, page.read_text())
        assert (
            "sandbox allow-scripts" in policy and "allow-same-origin" not in policy and "default-src 'none'" in policy
        )
        assert ("script-src 'unsafe-inline'" in policy) is runs


def test_only_pages_in_the_folder_are_reports(client: TestClient, bank: Bank) -> None:
    reports = bank.workspace.reports
    reports.mkdir()
    (reports.parent / "secret.html").write_text("kept to itself")
    (reports / "x.txt").write_text("kept to itself")
    (reports / "link.html").symlink_to(reports.parent / "secret.html")
    (reports / "folder.html").mkdir()
    os.mkfifo(reports / "fifo.html")
    for name in ("../secret.html", "..%2fsecret.html", "%2e%2e/secret.html", "link.html", "folder.html", "x.txt"):
        answer = client.get(f"/reports/{name}")
        assert (answer.status_code, "kept to itself" in answer.text) == (404, False), name
    for name in ("../secret.html", "a\\b.html", "a\0.html", "fifo.html", "x" * 300 + ".html", "", "."):
        assert read_report(reports, name) is None


def test_a_strangers_text_is_inert_and_the_life_is_told(client: TestClient, bank: Bank) -> None:
    now = datetime.now(UTC)
    bank.wait(now - timedelta(minutes=3))
    bank.sign_off().reject("2", by="eve \u202eevil", why=HOSTILE, account="eve")
    with ActionStore(bank.workspace.windows, NAME) as done:
        done.add(Action(at=now - timedelta(hours=1), kind="retraining", version="1", subject="w", why=HOSTILE))
    with Alerts(bank.workspace.alerts, bank.settings.alerts, policy="banking") as alerts:
        alerts.event("detected", "a window", at=now, text=HOSTILE)
    for path in ("/", "/life"):
        page = client.get(path).text
        assert "document.title = &#34;owned" in page
        body = page.split("<body>")[1].split("<script>")[0]
        assert "<img" not in body and "<script" not in body and "\u202e" not in page
    told = said(client.get("/life").text)
    for what in ("gate passed", "waiting", "rejection", "retraining", "champion", "window"):
        assert what in told, what


def test_a_mistake_in_what_is_stored_is_a_sentence(client: TestClient, bank: Bank) -> None:
    bank.workspace.promotion_record.write_text("no entry\n")
    answer = client.get("/")
    assert answer.status_code == 503
    assert "is no entry of the promotion record" in said(answer.text)
