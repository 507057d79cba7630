"""What a browser gets from the service: pages without secrets, under a strict policy, and only what was asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from loopback import Reply, running_server
from served import openai_client
from word_judge import CARD

from ontopic.config.settings import EndpointSettings
from ontopic.monitoring.standing import WindowLimits
from ontopic.monitoring.window import Counts, window_result
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Judged, Verdict
from ontopic.traffic.shadow import ShadowAnswer
from ontopic.traffic.store import TrafficStore
from serving import html_pages
from serving.process import ServedModel, Serving

MODEL, VERSION = "ontopic-gardening", "gpt-4o"
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
HOSTILE = "<img src=x onerror=alert(1)>\u202e"


def serving(state: Path, upstream: str, **more: Any) -> Serving:
    behind = EndpointSettings(model=VERSION, base_url=upstream, max_retries=0)
    values = {"model_version": VERSION, "model_name": MODEL, "traffic": state / "traffic.db", "state": state}
    return Serving(upstream=behind, **(values | more))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedModel]:
    with running_server() as upstream:
        upstream.reply = lambda _: Reply(text=HOSTILE)
        with ServedModel(serving(tmp_path_factory.mktemp("pages"), upstream.url, chat_page=True)) as model:
            yield model


def get(served: ServedModel, path: str, key: str = "", **headers: str) -> httpx.Response:
    given = headers | ({"authorization": f"Bearer {key}"} if key else {})
    return httpx.get(served.base_url.removesuffix("/v1") + path, headers=given, timeout=60, trust_env=False)


@pytest.mark.parametrize("path", ["/", "/docs", "/chat"])
def test_a_browser_gets_a_page_that_runs_nothing_but_its_own_script(served: ServedModel, path: str) -> None:
    found = get(served, path, **BROWSER)
    assert (found.status_code, found.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = found.headers["content-security-policy"]
    assert "default-src 'none'" in policy and policy.endswith("; frame-ancestors 'none'")
    assert not re.search(r"unsafe|\*|https?:", policy)
    assert ("connect-src 'self'" in policy) == (path == "/chat")
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["referrer-policy"] == "no-referrer"
    assert found.headers["x-frame-options"] == "DENY"
    for secret in (served.api_key, MODEL, VERSION, str(served.log.parent)):
        assert secret not in found.text
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=|\son\w+=|style=", found.text)
    assert "innerHTML" not in found.text and "localStorage" not in found.text


def test_programs_are_told_as_before(served: ServedModel) -> None:
    for path, accept in (("/", "*/*"), ("/", "application/json"), ("/v1/models", BROWSER["accept"]), ("/metrics", "*")):
        found = get(served, path, accept=accept)
        assert (found.status_code, found.json()["error"]["code"]) == (401, "invalid_api_key")
        assert "text/html" not in found.headers["content-type"]
    assert httpx.post(served.base_url.removesuffix("/v1") + "/chat", trust_env=False).status_code == 401


def test_the_page_to_chat_on_is_there_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    scope: Any = {"type": "http", "method": "GET", "path": "/chat", "headers": [(b"accept", b"text/html")]}
    monkeypatch.delenv("ONTOPIC_CHAT_PAGE", raising=False)
    assert not html_pages.is_page(scope)
    assert html_pages.is_page(scope | {"path": "/"})
    monkeypatch.setenv("ONTOPIC_CHAT_PAGE", "1")
    assert html_pages.is_page(scope) and not html_pages.is_page(scope | {"method": "POST"})


def test_what_became_of_an_answer_is_told_to_whose_it_is(served: ServedModel) -> None:
    asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": "How do I prune my roses?"}]}
    with openai_client(served.base_url, served.api_key) as client:
        record_id = client.chat.completions.with_raw_response.create(**asked).headers["x-ontopic-record-id"]
    path, key = f"/v1/answers/{record_id}", served.api_key
    assert get(served, path, key).json() == {
        "object": "answer",
        "record_id": record_id,
        "model_version": VERSION,
        "guard": None,
        "verdict": None,
        "beside": [],
        "challenger": None,
    }
    root = served.log.parent
    said = Verdict(outcome="fail", score=0.1, explanation=HOSTILE, judge_id="words")
    with TrafficStore(root / "traffic.db", MODEL) as traffic, WindowStore(root / "windows.db", MODEL) as windows:
        records = traffic.records(ids=[record_id])
        windows.put(records, 1)
        windows.keep_verdicts({record_id: said}, "words")
        (window,) = windows.holding([record_id])
        judged = Judged(records=records, verdicts=[said])
        limits = WindowLimits(threshold=0.9, least_records=1)
        result = window_result(judged, CARD, limits=limits, counts=Counts(n=1))
        windows.close_window(window, result, now=datetime.now(UTC))
        traffic.add_shadow(ShadowAnswer(record_id=record_id, model_version="3", answer="In spring."))
        other = records[0].model_copy(update={"id": "another", "key": "branch"})
        traffic.add(other)
    found = get(served, path, key).json()
    assert found["verdict"] == said.model_dump(include={"outcome", "score", "explanation", "cause", "judge_id"})
    assert found["beside"] == [{"model_version": "3", "answer": "In spring."}]
    for unknown in ("another", "unknown", "x" * 65, "%00", "%EF%BF%BD"):
        refused = get(served, f"/v1/answers/{unknown}", key)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "record_not_found")
    assert get(served, path).status_code == 401


def test_without_keys_pages_are_for_this_machine(tmp_path: Path) -> None:
    with running_server() as upstream, ServedModel(serving(tmp_path, upstream.url, no_auth=True)) as served:
        assert "--chat-page" in get(served, "/", **BROWSER).text
        assert get(served, "/chat", **BROWSER).status_code == 404
        assert get(served, "/", **BROWSER, host="evil.example").status_code == 403
