"""The engine behind LLM judges and teacher, over real HTTP on the loopback interface."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest
from loopback import ChatServer, Reply

from ontopic.config.settings import EndpointSettings
from ontopic.endpoint import replies
from ontopic.endpoint.client import llm_client
from ontopic.endpoint.endpoint import Endpoint
from ontopic.endpoint.replies import Prompt
from ontopic.errors import UserError

SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
USAGE = {"usage": {"prompt_tokens": 100, "completion_tokens": 10}}
PRICES = {"usd_per_million_prompt_tokens": 2.0, "usd_per_million_completion_tokens": 10.0}


def endpoint_of(server: ChatServer, **settings: Any) -> Endpoint:
    given = {"model": "m", "base_url": server.url, "concurrency": 4, "max_retries": 1, "timeout_s": 10, **settings}
    return Endpoint(EndpointSettings(**given))


def prompt(text: str, key: str | None = None, **parts: Any) -> Prompt:
    return Prompt([{"role": "user", "content": text}], (key or text).encode(), **parts)


def ask(asked: Endpoint, *prompts: Prompt) -> list[replies.Reply]:
    return list(asked.ask_all(prompts, lambda _, reply: reply))


def echo(request: dict[str, Any]) -> Reply:
    return Reply(request["messages"][0]["content"], parts=USAGE)


def test_replies_come_in_order_and_known_answers_in_their_place(chat_server: ChatServer) -> None:
    chat_server.reply = lambda request: Reply(
        request["messages"][0]["content"], delay_s=0.05 if request["messages"][0]["content"] == "0" else 0
    )
    asked: list[Prompt | str] = [prompt("0"), "known", *(prompt(str(i)) for i in range(1, 10))]
    answers = list(endpoint_of(chat_server).ask_all(asked, lambda _, reply: reply.text))
    assert answers == ["0", "known", *(str(i) for i in range(1, 10))]


def test_no_more_requests_than_allowed_are_under_way(chat_server: ChatServer) -> None:
    done, under_way = 0, []

    def reply(request: dict[str, Any]) -> Reply:
        under_way.append(len(chat_server.requests) - done)
        return Reply("", delay_s=0.02)

    def read(*_: object) -> str:
        nonlocal done
        done += 1
        return ""

    chat_server.reply = reply
    list(endpoint_of(chat_server, concurrency=3).ask_all([prompt(str(i)) for i in range(20)], read))
    assert max(under_way) == 3


def test_a_stream_is_read_only_a_little_ahead(chat_server: ChatServer) -> None:
    chat_server.reply = echo
    taken = 0

    def endless() -> Iterator[Prompt]:
        nonlocal taken
        while True:
            taken += 1
            yield prompt(str(taken))

    said = endpoint_of(chat_server, concurrency=2).ask_all(endless(), lambda _, reply: reply.text)
    assert [next(said) for _ in range(100)] == [str(i) for i in range(1, 101)]
    said.close()  # type: ignore[attr-defined]
    assert taken <= 100 + 2 * 16 + 1


def test_prompts_of_one_key_are_sent_once_while_one_is_under_way(chat_server: ChatServer) -> None:
    chat_server.reply = lambda request: Reply("yes", delay_s=0.1)
    asked = endpoint_of(chat_server)
    said = ask(asked, prompt("a", "same"), prompt("b", "same"), prompt("c", "other"))
    assert [reply.text for reply in said] == ["yes"] * 3
    assert sorted(chat_server.prompts()) == ["a", "c"]
    assert (asked.account.requests, asked.account.cached) == (2, 1)


def test_it_works_where_an_event_loop_runs_already(chat_server: ChatServer) -> None:
    chat_server.reply = echo

    async def caller() -> list[replies.Reply]:
        return ask(endpoint_of(chat_server), prompt("a"))

    assert asyncio.run(caller())[0].text == "a"


def test_threads_share_one_endpoint(chat_server: ChatServer) -> None:
    chat_server.reply = echo
    asked, texts = endpoint_of(chat_server), []
    threads = [threading.Thread(target=lambda n=n: texts.append(ask(asked, prompt(f"{n}"))[0].text)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts) == [str(n) for n in range(8)]
    assert asked.account.requests == 8


def test_what_a_stream_raises_ends_the_call(chat_server: ChatServer) -> None:
    chat_server.reply = echo

    def broken() -> Iterator[Prompt]:
        yield prompt("a")
        raise ValueError("the file is cut")

    with pytest.raises(ValueError, match="the file is cut"):
        list(endpoint_of(chat_server).ask_all(broken(), lambda _, reply: reply))


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("message", ["refused", "unknown field response_format"])
def test_a_server_that_refuses_the_schema_is_asked_without_it(
    chat_server: ChatServer, status: int, message: str
) -> None:
    chat_server.reply = lambda request: (
        Reply(message, status=status) if "response_format" in request else Reply("yes", parts=USAGE)
    )
    asked = endpoint_of(chat_server, concurrency=1)
    said = ask(asked, *(prompt(text, schema=SCHEMA) for text in "abc"))
    assert [reply.text for reply in said] == ["yes"] * 3
    # refused once, and not tried again
    assert ["response_format" in request for request in chat_server.requests] == [True, False, False, False]
    assert asked.account.requests == 3


@pytest.mark.parametrize(
    ("named", "left"),
    [("logprobs", {"response_format", "temperature"}), ("temperature", {"response_format", "logprobs"})],
)
def test_only_the_option_that_a_server_names_is_left_out(chat_server: ChatServer, named: str, left: set[str]) -> None:
    chat_server.reply = lambda request: (
        Reply(f"'{named}' is not supported with this model", status=400) if named in request else Reply("yes")
    )
    ask(endpoint_of(chat_server), prompt("a", schema=SCHEMA, logprobs=True))
    assert {"response_format", "logprobs", "temperature"} & chat_server.requests[-1].keys() == left
    assert ("top_logprobs" in chat_server.requests[-1]) == ("logprobs" in left)


def test_a_record_that_the_server_refuses_does_not_switch_the_schema_off(chat_server: ChatServer) -> None:
    chat_server.reply = lambda request: (
        Reply(status=400) if request["messages"][0]["content"] == "too long" else Reply("yes")
    )
    said = ask(endpoint_of(chat_server, concurrency=1), prompt("too long", schema=SCHEMA), prompt("a", schema=SCHEMA))
    assert [reply.failure for reply in said] == ["request failed: BadRequestError 400: refused (test)", None]
    assert "response_format" in chat_server.requests[-1]


@pytest.mark.parametrize("after", ["0.01", "date"])
def test_a_busy_server_is_asked_again_after_the_time_it_names(chat_server: ChatServer, after: str) -> None:
    headers = {"Retry-After": formatdate(usegmt=True) if after == "date" else after}
    chat_server.reply = lambda request: (
        Reply(status=429, headers=headers) if len(chat_server.requests) == 1 else Reply("yes")
    )
    assert ask(endpoint_of(chat_server), prompt("a"))[0].text == "yes"
    assert len(chat_server.requests) == 2


def test_a_server_that_names_more_than_two_minutes_is_not_asked_again(chat_server: ChatServer) -> None:
    chat_server.reply = lambda request: Reply(status=429, headers={"Retry-After": "3600"})
    assert ask(endpoint_of(chat_server), prompt("a"))[0].failure == "request failed: RateLimitError 429: refused (test)"
    assert len(chat_server.requests) == 1


def test_a_request_keeps_its_idempotency_key_when_it_is_sent_again(chat_server: ChatServer) -> None:
    chat_server.reply = lambda request: (
        Reply("yes") if len(chat_server.requests) > 2 else Reply(status=503, headers={"Retry-After": "0.01"})
    )
    asked = endpoint_of(chat_server, max_retries=4)
    ask(asked, prompt("a"))
    assert len(chat_server.keys) == 3
    assert len(set(chat_server.keys)) == 1
    ask(asked, prompt("a"))
    assert len(set(chat_server.keys)) == 2
    assert None not in chat_server.keys


@pytest.mark.parametrize(("status", "name"), [(500, "InternalServerError"), (429, "RateLimitError")])
def test_a_server_that_never_recovers_is_a_failure(chat_server: ChatServer, status: int, name: str) -> None:
    chat_server.reply = lambda request: Reply(status=status, headers={"Retry-After": "0.01"})
    asked = endpoint_of(chat_server)
    assert [r.failure for r in ask(asked, prompt("a"), prompt("b"))] == [
        f"request failed: {name} {status}: refused (test)"
    ] * 2
    assert len(chat_server.requests) == 4
    assert asked.account.requests == 0


def test_a_server_that_is_not_there_or_too_slow_is_a_failure(chat_server: ChatServer) -> None:
    gone = endpoint_of(chat_server, base_url="http://127.0.0.1:9/v1", max_retries=0)
    failed = "request failed: APIConnectionError at http://127.0.0.1:9/v1: "
    assert str(ask(gone, prompt("a"))[0].failure).startswith(failed)
    chat_server.reply = lambda request: Reply("late", delay_s=0.5)
    slow = endpoint_of(chat_server, timeout_s=0.05, max_retries=0)
    assert str(ask(slow, prompt("a"))[0].failure).startswith(f"request failed: APITimeoutError at {chat_server.url}")


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"<html>Log in first</html>", content_type="text/html"),
        Reply(body=b"not json"),
        Reply(body=b""),
        Reply(body=b"[" * 100_000),
        Reply(body=b"{}"),
        Reply(body=b"[]"),
        Reply(body=b'{"choices": []}'),
        Reply(body=b'{"choices": [[]]}'),
        Reply(body=b'{"choices": [{"message": null}]}'),
    ],
    ids=["html", "broken", "nothing", "nested", "empty", "list", "no choice", "odd choice", "no message"],
)
def test_a_reply_that_is_no_completion_is_a_failure_and_counted(chat_server: ChatServer, reply: Reply) -> None:
    chat_server.reply = lambda request: reply
    asked = endpoint_of(chat_server)
    assert str(ask(asked, prompt("a"))[0].failure).startswith("the server's reply is not a chat completion: ")
    assert (asked.account.requests, len(chat_server.requests)) == (1, 1)


def test_a_text_that_is_no_unicode_is_a_failure_and_not_sent(chat_server: ChatServer) -> None:
    chat_server.reply = echo
    broken, whole = ask(endpoint_of(chat_server), prompt("half \ud83d", "1"), prompt("a"))
    assert broken.failure == "the record cannot be sent: it is not valid Unicode"
    assert whole.text == "a"
    assert chat_server.prompts() == ["a"]


def test_the_account_adds_up_tokens_and_cost(chat_server: ChatServer) -> None:
    chat_server.reply = echo
    asked = endpoint_of(chat_server, **PRICES)
    ask(asked, *(prompt(text) for text in "abc"))
    account = asked.account
    assert (account.requests, account.prompt_tokens, account.completion_tokens) == (3, 300, 30)
    assert account.usd == pytest.approx(3 * (100 * 2 + 10 * 10) / 1e6)
    unpriced = endpoint_of(chat_server)
    ask(unpriced, prompt("a"))
    assert unpriced.account.usd is None


@pytest.mark.parametrize(
    ("budget", "named"),
    [({"budget_tokens": 330}, "the budget of 330 tokens is spent"), ({"budget_usd": 0.0009}, "0.0009 USD is spent")],
)
def test_once_the_budget_is_spent_nothing_more_is_sent(
    chat_server: ChatServer, budget: dict[str, float], named: str
) -> None:
    chat_server.reply = echo
    asked = endpoint_of(chat_server, concurrency=1, **PRICES, **budget)
    said = ask(asked, *(prompt(str(i)) for i in range(10)))
    assert [reply.text for reply in said] == ["0", "1", "2", *[""] * 7]
    assert all(reply.failure and reply.failure.endswith(named) for reply in said[3:])
    assert len(chat_server.requests) == asked.account.requests == 3
    assert ask(asked, prompt("later"))[0].failure
    assert len(chat_server.requests) == 3


def test_a_request_is_not_sent_again_after_the_budget_is_spent(chat_server: ChatServer) -> None:
    chat_server.reply = lambda request: (
        Reply(status=500, headers={"Retry-After": "0.3"})
        if request["messages"][0]["content"] == "failing"
        else Reply("yes", parts=USAGE)
    )
    said = ask(endpoint_of(chat_server, budget_tokens=1, concurrency=2), prompt("failing"), prompt("a"))
    assert said[0].failure == "not asked: the budget of 1 tokens is spent"
    assert len(chat_server.requests) == 2


def test_a_budget_that_cannot_be_kept_stops_after_what_is_under_way(chat_server: ChatServer) -> None:
    chat_server.reply = lambda request: Reply("yes")  # and does not say what it used
    said = ask(endpoint_of(chat_server, concurrency=1, budget_tokens=10_000), prompt("a"), prompt("b"))
    assert said[0].text == "yes"
    assert said[1].failure == "not asked: the server does not say what it used, so no budget can be kept"


def test_a_budget_in_dollars_without_a_price_is_a_user_error(chat_server: ChatServer) -> None:
    with pytest.raises(UserError, match="budget_usd needs the price"):
        endpoint_of(chat_server, budget_usd=1.0, usd_per_million_prompt_tokens=1.0)


def test_the_key_comes_from_its_variable_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OTHER_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "of another server")
    settings = EndpointSettings(model="m", api_key_variable="OTHER_KEY")
    with pytest.raises(UserError, match="OTHER_KEY is not set"):
        Endpoint(settings).check()
    monkeypatch.setenv("OTHER_KEY", "right")
    monkeypatch.delenv("ALL_PROXY"), monkeypatch.delenv("SSL_CERT_FILE")
    assert llm_client(settings).api_key == "right"
    monkeypatch.delenv("OTHER_KEY")
    own = settings.model_copy(update={"base_url": "http://127.0.0.1:9/v1"})
    assert llm_client(own).api_key == "none"


@pytest.mark.parametrize("address", ["localhost:8000/v1", "http://", "ftp://host/v1"])
def test_an_address_that_is_not_one_is_a_user_error(address: str) -> None:
    with pytest.raises(UserError, match="is not the address of a server"):
        Endpoint(EndpointSettings(model="m", base_url=address))


def test_an_endpoint_that_is_done_with_closes_its_connections(chat_server: ChatServer) -> None:
    chat_server.reply = echo
    asked = endpoint_of(chat_server)
    ask(asked, prompt("a"))
    client = asked._opened()
    del asked
    gc.collect()
    for _ in range(100):
        if client.is_closed():
            break
        time.sleep(0.05)
    assert client.is_closed()


def test_a_warning_about_a_server_is_logged_once(chat_server: ChatServer, caplog: pytest.LogCaptureFixture) -> None:
    asked = endpoint_of(chat_server)
    with caplog.at_level(logging.WARNING, logger="ontopic.endpoint.endpoint"):
        asked.warn_once("odd")
        asked.warn_once("odd")
    assert caplog.text.count("odd") == 1
