"""What no repetition mends is seen once, said once, and not asked hundreds of times."""

# ruff: noqa: E501 (a row of a table is a line)

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from loopback import ChatServer, Reply

from ontopic.config.settings import EndpointSettings
from ontopic.endpoint import endpoint as endpoint_module
from ontopic.endpoint.endpoint import Endpoint
from ontopic.endpoint.refusals import RefusedError
from ontopic.endpoint.replies import Prompt
from ontopic.errors import UserError

SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-wrong-key")


def endpoint_of(server: ChatServer, **settings: Any) -> Endpoint:
    given = {"model": "m", "base_url": server.url, "concurrency": 4, "max_retries": 6, **settings}
    return Endpoint(EndpointSettings(**given))


def prompts(n: int) -> list[Prompt]:
    return [Prompt([{"role": "user", "content": f"question {i}"}], str(i).encode(), SCHEMA) for i in range(n)]


def error(status: int, **content: Any) -> Reply:
    return Reply(status=status, body=json.dumps(content).encode(), headers={"Retry-After": "0.01"})


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (error(401, error={"message": "Incorrect API key provided: a-wrong-key."}), "does not take the key in OPENAI_API_KEY (401: Incorrect API key provided: (key).)"),
        (Reply(status=401, body=b"<h1>Authorization Required</h1>"), "does not take the key in OPENAI_API_KEY (401: Authorization Required)"),
        (error(401), "does not take the key in OPENAI_API_KEY (401)"),
        (error(403, error={"message": "Country not supported"}), "refuses the requests (403: Country not supported)"),
        (error(400, error={"code": 400, "message": "API key not valid. Please pass a valid API key."}), "does not take the key"),
        (error(429, error={"message": "See your plan.", "code": "insufficient_quota"}), "the quota at {url} is used up (429: See your plan. (insufficient_quota))"),
        (error(429, error={"message": "You exceeded your current quota, please check your plan and billing details."}), "is used up"),
        (error(402, error={"message": "Insufficient Balance"}), "is used up (402: Insufficient Balance)"),
        (error(400, type="error", error={"message": "Your credit balance is too low to access the API."}), "is used up"),
        (error(404, error='model "m" not found, try pulling it first'), "has no model 'm' to chat with (404: model \"m\" not found, try pulling it first)"),
        (Reply(status=404, body=b"<html><title>404 Not Found</title></html>"), "has no model 'm' to chat with (404: 404 Not Found)"),
        (error(404, detail="Not Found"), "has no model 'm' to chat with (404: Not Found); correct model or base_url"),
        (error(400, error={"message": "The model `m` does not exist", "code": "model_not_found"}), "has no model 'm'"),
        (error(400, error='"m" does not support chat'), "has no model 'm'"),
        (Reply(status=405, body=b"Method Not Allowed", content_type="text/plain"), "has no model 'm' to chat with (405"),
        (error(200, error={"message": "boom", "code": 401}), "does not take the key in OPENAI_API_KEY (401: boom)"),
        (error(200, error={"message": "See your plan.", "type": "insufficient_quota"}), "is used up (429"),
        (error(200, error="model 'm' not found"), "has no model 'm'"),
    ],
)  # fmt: skip
def test_what_cannot_succeed_ends_the_run(chat_server: ChatServer, reply: Reply, sentence: str) -> None:
    chat_server.reply = lambda request: reply
    asked = endpoint_of(chat_server)
    with pytest.raises(RefusedError) as raised:
        list(asked.ask_all(prompts(200), lambda _, reply: reply))
    assert sentence.format(url=chat_server.url) in str(raised.value)
    assert chat_server.url in str(raised.value)
    assert str(raised.value).endswith("and run again")
    assert len(chat_server.requests) <= 4  # those under way
    # Nor by another call, for a while.
    with pytest.raises(RefusedError):
        asyncio.run(asked.ask(prompts(1)[0]))
    assert len(chat_server.requests) <= 4
    assert asked.account.requests == 0


def test_a_server_that_wants_a_key_where_none_is_set_says_which(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    chat_server.reply = lambda request: error(401)
    with pytest.raises(RefusedError, match=r"asks for a key and OPENAI_API_KEY is not set \(401\); put it into .env"):
        list(endpoint_of(chat_server).ask_all(prompts(9), lambda _, reply: reply))


@pytest.mark.parametrize(
    "refusal",
    [
        error(403, error={"message": "Your input was flagged by moderation."}),
        Reply(status=403, body=b"<html><title>Blocked</title></html>"),
        error(400, error={"message": "The response was filtered: content_filter"}),
        error(400, error={"message": "maximum context length"}),
    ],
)
def test_a_record_that_is_stopped_by_what_it_says_stops_no_other(chat_server: ChatServer, refusal: Reply) -> None:
    chat_server.reply = lambda request: refusal if said(request) == "question 0" else Reply("yes")
    replies = list(endpoint_of(chat_server, concurrency=1).ask_all(prompts(3), lambda _, reply: reply))
    assert [reply.text for reply in replies] == ["", "yes", "yes"]
    assert replies[0].failure
    assert len(chat_server.requests) == 3


def test_after_answers_one_refusal_is_a_records_and_many_in_a_row_are_all(chat_server: ChatServer) -> None:
    refusal = error(404, error={"message": "model not found"})
    chat_server.reply = lambda request: refusal if len(chat_server.requests) in (2, *range(4, 400)) else Reply("yes")
    texts = []
    with pytest.raises(RefusedError, match="has no model"):
        for text in endpoint_of(chat_server, concurrency=1).ask_all(prompts(200), lambda _, reply: reply.text):
            texts.append(text)
    assert texts[:3] == ["yes", "", "yes"]
    assert len(chat_server.requests) == 3 + 16


def test_after_a_while_it_is_tried_again(chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "_SILENT_S", 0.0)
    chat_server.reply = lambda request: error(401) if len(chat_server.requests) == 1 else Reply("yes")
    asked = endpoint_of(chat_server, concurrency=1)
    with pytest.raises(RefusedError):
        list(asked.ask_all(prompts(2), lambda _, reply: reply))
    assert [reply.text for reply in asked.ask_all(prompts(2), lambda _, reply: reply)] == ["yes", "yes"]


DEFAULT_ONLY = "'temperature' does not support 0 with this model. Only the default (1) value is supported."
NO_SCHEMA = "This model does not support response_format json_schema"


@pytest.mark.parametrize(
    ("status", "message", "left_out"),
    [
        *((status, DEFAULT_ONLY, ["temperature"]) for status in (400, 404, 422, 500, 200)),
        *((status, NO_SCHEMA, ["response_format"]) for status in (400, 404, 422, 500, 200)),
        *((status, "Unsupported parameter", ["response_format", "temperature"]) for status in (400, 422, 200)),
    ],
)
def test_a_server_that_takes_not_all_options_is_asked_without(
    chat_server: ChatServer, status: int, message: str, left_out: list[str]
) -> None:
    refusal = error(status, error={"message": message} | ({} if status != 200 else {"code": 400}))
    chat_server.reply = lambda request: refusal if any(name in request for name in left_out) else Reply("yes")
    replies = list(endpoint_of(chat_server, concurrency=1).ask_all(prompts(2), lambda _, reply: reply))
    assert [reply.text for reply in replies] == ["yes", "yes"]
    assert len(chat_server.requests) == 2 + len(left_out)


def said(request: dict[str, Any]) -> str:
    return str(request["messages"][0]["content"])


# Key and address


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("sk-proj—abc", "its 8. of 11: U+2014 EM DASH"),
        ("sk-abc\n", "its 7. of 7: U+000A"),
        ("\ufeffsk-abc", "its 1. of 7: U+FEFF"),
        (" sk-abc", "its 1. of 7: U+0020 SPACE"),
        ("sk-abc ", "its 7. of 7: U+0020 SPACE"),
        ("“sk-abc”", "its 1. of 8: U+201C"),
        ("sk-\x7fabc", "its 4. of 7: U+007F"),
    ],
)
@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "OTHER_KEY", "OPENAI_ORG_ID"])
def test_a_key_that_no_header_can_hold_is_said_before_any_work(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, key: str, place: str, variable: str
) -> None:
    monkeypatch.setenv(variable, key)
    named = {"api_key_variable": variable} if variable == "OTHER_KEY" else {}
    with pytest.raises(UserError) as raised:
        endpoint_of(chat_server, **named)
    assert f"the key in {variable} has a character that no header can hold, {place}" in str(raised.value)
    assert "abc" not in str(raised.value)


def test_a_header_of_the_environments_own_is_not_taken_for_a_record(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-team: r—d")
    with pytest.raises(UserError, match="a header of the requests has a character that no header can hold"):
        list(endpoint_of(chat_server).ask_all(prompts(3), lambda _, reply: reply))
    assert not chat_server.requests


@pytest.mark.parametrize(
    "ending", ["/chat/completions", "/chat/completions/", "/completions", "/responses", "/models", "/embeddings", "/"]
)
def test_the_address_of_a_call_is_taken_for_its_servers(chat_server: ChatServer, ending: str) -> None:
    chat_server.reply = lambda request: Reply("yes")
    asked = endpoint_of(chat_server, base_url=f"{chat_server.url}{ending}")
    assert [reply.text for reply in asked.ask_all(prompts(1), lambda _, reply: reply)] == ["yes"]


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1:8000/v1", "is not the address of a server"),
        ("http://[::1", "is not the address of a server"),
        ("http://127.0.0.1:99999/v1", "is not the address of a server"),
        ("http://a host/v1", "is not the address of a server"),
        (" http://127.0.0.1/v1", "is not the address of a server"),
        ("http://127.0.0.1/v1\n", "is not the address of a server"),
        ("https://ann:secret@host/v1?api-version=1", "base_url https://host/v1 has a part after ? or #"),
        ("http://127.0.0.1/v1#x", "has a part after ? or #"),
    ],
)
def test_an_address_that_no_request_can_use_is_refused(address: str, why: str) -> None:
    with pytest.raises(UserError) as raised:
        Endpoint(EndpointSettings(model="m", base_url=address))
    assert why in str(raised.value)
