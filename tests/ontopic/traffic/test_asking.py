"""Asking at a rate: an open loop over real HTTP, and which questions it asks."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest
from loopback import ChatServer, Reply

from ontopic.data.labelled import Question
from ontopic.errors import UserError
from ontopic.traffic.asking import Sent, ask_at_rate, key_of, questions_to_send

ROWS = [Question(question=f"in {i}", in_scope=True) for i in range(3)]
ROWS += [Question(question=f"out {i}", in_scope=False) for i in range(9)]


def asking(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def test_questions_go_out_at_the_rate_whether_answered_or_not(chat_server: ChatServer) -> None:
    arrivals = []

    def reply(request: dict) -> Reply:
        arrivals.append(time.monotonic())
        return Reply("a", delay_s=1.0)

    chat_server.reply = reply
    sent, done = Sent(), list[int]()
    ask_at_rate(
        (asking(f"q{i}") for i in range(40)),
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
        [*map(asking, ["good", "bad", "bad"])],
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
    everything = questions_to_send(ROWS, None, in_scope_share=None)
    assert sorted(row.question for row in everything) == sorted(row.question for row in ROWS)
    chosen = questions_to_send(ROWS, 100, in_scope_share=0.25)
    assert chosen == questions_to_send(ROWS, 100, in_scope_share=0.25)
    assert sum(question.in_scope for question in chosen) == 25
    counts = Counter(question.question for question in chosen)
    assert len(counts) == len(ROWS)
    for kind in ("in", "out"):
        times = [n for question, n in counts.items() if question.startswith(kind)]
        assert max(times) - min(times) == 1  # 25 of 3, and 75 of 9
    for rows in (ROWS, ROWS[:3]):
        assert {row.question for row in questions_to_send(rows, 5, in_scope_share=1.0)} == {"in 0", "in 1", "in 2"}
    with pytest.raises(
        UserError, match="are in scope and 0 out of scope, and --in-scope-share needs at least 1 of each"
    ):
        questions_to_send(ROWS[:3], 5, in_scope_share=0.5)


def test_the_key_comes_from_the_variable_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    assert key_of("MY_KEY") == "secret"
    with pytest.raises(UserError, match="NO_SUCH_KEY is not set"):
        key_of("NO_SUCH_KEY")
    monkeypatch.setenv("OPENAI_API_KEY", "mine")
    assert key_of(None) == "mine"
    for wrong in ("sk-proj\N{EM DASH}abc", "two\nlines"):
        monkeypatch.setenv("OPENAI_API_KEY", wrong)
        with pytest.raises(UserError, match="OPENAI_API_KEY has a character that no header can hold"):
            key_of(None)
    monkeypatch.delenv("OPENAI_API_KEY")
    assert key_of(None) == "none"


def send(server: ChatServer, *questions: str, rate: float = 1000) -> Sent:
    sent = Sent()
    options = {"model": "m", "api_key": "key", "max_tokens": 5, "rate": rate, "sent": sent, "advance": lambda _: None}
    ask_at_rate([*map(asking, questions)], server.url, **options)  # type: ignore[arg-type]
    return sent


def error(**parts: object) -> bytes:
    return json.dumps({"error": {"message": "said so", "type": None, "code": None} | parts}).encode()


REFUSALS = [
    (401, error(code="invalid_api_key"), "key"),
    (403, error(), "refused"),
    (404, error(code="model_not_found"), "model"),
    (404, b'{"detail": "said so"}', "model"),
    (404, b'{"error": "said so"}', "model"),
    (402, b"said so", "quota"),
    (429, error(code="insufficient_quota"), "quota"),
    (429, error(type="insufficient_quota"), "quota"),
    (200, error(code=401), "key"),
    (200, error(code="insufficient_quota"), "quota"),
]


@pytest.mark.parametrize(("status", "body", "refusal"), REFUSALS)
def test_asking_stops_where_the_server_refuses_whatever_is_asked(
    chat_server: ChatServer, status: int, body: bytes, refusal: str
) -> None:
    chat_server.reply = lambda request: Reply(status=status, body=body)
    sent = send(chat_server, *map(str, range(200)), rate=20)
    assert sent.refusal == refusal
    assert "said so" in str(sent.error)
    assert len(chat_server.requests) == sent.failed <= 3  # others were under way when the first was refused


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (429, error(code="rate_limit_exceeded"), "RateLimitError 429: said so"),
        (500, b"<html>oh\x1b[31m</html>", ": oh"),
        (400, error(code="content_filter"), "BadRequestError 400: said so"),
        (200, error(code=500), "InternalServerError 500: said so"),
        (200, b'{"error": "said so"}', "reply of status 200: said so"),
        (200, error(message="\u202e" + "x" * 5000), "\u2026"),
        *(
            (200, body, "not a chat completion")
            for body in (b"null", b"{}", b'{"choices": []}', b"<html>", b"[" * 9999)
        ),
        *(
            (200, b'{"choices": [{"message": %s}]}' % part, "not a chat completion")
            for part in (b"null", b"{}", b"[1]")
        ),
    ],
)
def test_another_failure_is_told_and_the_rest_is_asked(
    chat_server: ChatServer, status: int, body: bytes, said: str
) -> None:
    chat_server.reply = lambda request: (
        Reply("yes") if len(chat_server.requests) > 1 else Reply(status=status, body=body)
    )
    sent = send(chat_server, "a", "b", "c", rate=20)
    assert (sent.answered, sent.failed, sent.refusal) == (2, 1, None)
    assert said in str(sent.error)
    assert str(sent.error).isprintable()
    assert len(str(sent.error)) < 400


def test_an_answer_in_parts_is_one(chat_server: ChatServer) -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "ye"}, {"type": "text", "text": "s"}]
    chat_server.reply = lambda request: Reply(choice={"message": {"role": "assistant", "content": parts}})
    assert send(chat_server, "a").answered == 1


@pytest.mark.parametrize(
    "takes", [{"max_completion_tokens"}, {"max_tokens"}, {"max_completion_tokens", "temperature"}, set()]
)
def test_options_that_the_model_does_not_take_are_left_out(chat_server: ChatServer, takes: set[str]) -> None:
    def reply(request: dict) -> Reply:
        for name in sorted(request.keys() - takes - {"model", "messages"}):
            return Reply(f"Unsupported parameter: '{name}' is not supported with this model.", status=400)
        return Reply("yes")

    chat_server.reply = reply
    sent = send(chat_server, "a", "b", "c", rate=5)
    assert (sent.answered, sent.failed) == (3, 0)
    known = chat_server.requests[-2:]  # by then it is known
    assert [request["messages"][0]["content"] for request in known] == ["b", "c"]
    assert all(request.keys() - {"model", "messages"} == takes for request in known)


def test_a_server_that_cannot_be_reached_is_told_with_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALL_PROXY"), monkeypatch.delenv("SSL_CERT_FILE")
    here = send(ChatServer(url="http://127.0.0.1:9/v1"), "a").error or ""
    assert here.startswith("request failed: APIConnectionError at http://127.0.0.1:9/v1: ")
    outside = ChatServer(url="https://llm.example.invalid/v1")
    there = send(outside, "a").error or ""
    where = "https://llm.example.invalid/v1 by the proxy of HTTPS_PROXY"
    assert there.startswith(f"request failed: APIConnectionError at {where}")
