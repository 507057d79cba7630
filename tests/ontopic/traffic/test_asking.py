"""Asking at a rate: an open loop over real HTTP, and which questions it asks."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from loopback import ChatServer, Reply

from ontopic.data.labelled import Question
from ontopic.errors import UserError
from ontopic.traffic.asking import Sent, ask_at_rate, key_of, questions_to_send

ROWS = [Question(question=f"in {i}", in_scope=True) for i in range(3)]
ROWS += [Question(question=f"out {i}", in_scope=False) for i in range(9)]


def test_questions_go_out_at_the_rate_whether_answered_or_not(chat_server: ChatServer) -> None:
    arrivals = []

    def reply(request: dict) -> Reply:
        arrivals.append(time.monotonic())
        return Reply("a", delay_s=1.0)

    chat_server.reply = reply
    sent, done = Sent(), list[int]()
    ask_at_rate(
        (f"q{i}" for i in range(40)),
        chat_server.url,
        model="m",
        api_key="key",
        max_tokens=5,
        rate=40,
        sent=sent,
        advance=done.append,
    )
    assert (sent.answered, sent.failed, sum(done)) == (40, 0, 40)
    # One after the other they would take 40 s; all at once they would arrive together.
    assert 0.8 < arrivals[-1] - arrivals[0] < 3
    assert all(latency > 0.99 for latency in sent.latencies_s)
    assert sorted(chat_server.prompts()) == sorted(f"q{i}" for i in range(40))
    assert "40 answered, 0 failed, latency p50 1." in str(sent)


def test_failures_are_counted_and_nothing_is_asked_twice(chat_server: ChatServer) -> None:
    chat_server.reply = lambda request: Reply(
        status=500 if request["messages"][0]["content"] == "bad" else 200, text="x"
    )
    sent = Sent()
    ask_at_rate(
        ["good", "bad", "bad"],
        chat_server.url,
        model="m",
        api_key="key",
        max_tokens=5,
        rate=1000,
        sent=sent,
        advance=lambda _: None,
    )
    assert (sent.answered, sent.failed) == (1, 2)
    assert sent.error and "500" in sent.error
    assert len(chat_server.requests) == 3
    assert str(Sent(failed=2)) == "0 answered, 2 failed"


def test_the_share_and_the_count_are_kept() -> None:
    assert sorted(questions_to_send(ROWS, None, in_scope_share=None)) == sorted(row.question for row in ROWS)
    chosen = questions_to_send(ROWS, 100, in_scope_share=0.25)
    assert chosen == questions_to_send(ROWS, 100, in_scope_share=0.25)
    assert sum(question.startswith("in") for question in chosen) == 25
    counts = Counter(chosen)
    assert len(counts) == len(ROWS)
    for kind in ("in", "out"):
        times = [n for question, n in counts.items() if question.startswith(kind)]
        assert max(times) - min(times) == 1  # 25 of 3, and 75 of 9
    assert set(questions_to_send(ROWS, 5, in_scope_share=1.0)) == {"in 0", "in 1", "in 2"}
    assert set(questions_to_send(ROWS[:3], 5, in_scope_share=1.0)) == {"in 0", "in 1", "in 2"}
    with pytest.raises(
        UserError, match="are in scope and 0 out of scope, and --in-scope-share needs at least 1 of each"
    ):
        questions_to_send(ROWS[:3], 5, in_scope_share=0.5)


def test_the_key_comes_from_the_variable_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    assert key_of("MY_KEY") == "secret"
    assert key_of(None) == "none"
    with pytest.raises(UserError, match="NO_SUCH_KEY is not set"):
        key_of("NO_SUCH_KEY")
