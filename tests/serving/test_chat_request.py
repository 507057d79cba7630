"""What a request for a chat completion may say, parameter by parameter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving.chat_request import ChatRequest, chat_request
from serving.errors import RequestError

QUESTION = "How do I open a savings account?"


def read(**parameters: Any) -> ChatRequest:
    body = {"model": "smol", "messages": [{"role": "user", "content": QUESTION}]} | parameters
    return chat_request(json.loads(json.dumps(body)), "smol", most_tokens=24)


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("stream", 1),
        ("stream_options", {"include_usage": True}),
        ("n", 0),
        ("n", 9),
        ("n", True),
        ("temperature", 2.1),
        ("temperature", float("nan")),
        ("temperature", "0"),
        ("top_p", -0.1),
        ("seed", 2**64),
        ("stop", [""]),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("stop", "x" * 1000),
        ("logprobs", "yes"),
        ("top_logprobs", 3),
        ("top_logprobs", 21),
        ("presence_penalty", 1),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("response_format", {"type": "json_object"}),
        ("max_tokens", 0),
        ("max_tokens", "5"),
        ("max_completion_tokens", -1),
        ("nonsense", 1),
        ("messages", []),
        ("messages", "hello"),
        ("messages", [{"role": "system", "content": "no user"}]),
        ("messages[0].role", [{"role": "robot", "content": "x"}]),
        ("messages", [{"role": "tool", "content": "no user"}]),
        ("messages[0].content", [{"role": "assistant", "content": None}]),
        ("messages[0].tool_calls", [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": 1}}]}]),
        ("messages[0].tool_calls", [{"role": "assistant", "content": None, "tool_calls": "x"}]),
        ("metadata", ["a"]),
        ("metadata", {"a": 1}),
        ("metadata", {"a": None}),
        ("metadata", {str(i): "" for i in range(17)}),
        ("metadata", {"x" * 65: ""}),
        ("metadata", {"x": "x" * 513}),
        ("metadata", {"x": "a\0b"}),
        ("messages[0].role", [{"role": ["user"], "content": "x"}]),
        ("messages[0].content", [{"role": "user", "content": None}]),
        ("messages[0].content", [{"role": "user", "content": [{"type": "image_url"}]}]),
        ("messages[0].content", [{"role": "user", "content": [{"type": "text", "text": 1}]}]),
        ("messages[0].content", [{"role": "user", "content": "a\0b"}]),
        ("messages[0].content", [{"role": "user", "content": "a\ud800b"}]),
        ("model", None),
    ],
)
def test_what_cannot_be_honoured_is_named(param: str, value: object) -> None:
    name = param.partition("[")[0]
    with pytest.raises(RequestError, match=name) as raised:
        read(**{name: value})
    assert (raised.value.status, raised.value.param) == (400, param)


NEUTRAL = {
    "stream": False,
    "n": 1,
    "temperature": 0,
    "top_p": 1,
    "stop": None,
    "presence_penalty": 0,
    "frequency_penalty": 0.0,
    "logit_bias": {},
    "tools": [],
    "tool_choice": "auto",
    "functions": [],
    "function_call": "none",
    "parallel_tool_calls": True,
    "response_format": {"type": "text"},
    "modalities": ["text"],
    "store": False,
    "metadata": {},
    "reasoning_effort": "none",
    "verbosity": "medium",
    "service_tier": "auto",
    "stream_options": {},
    "logprobs": False,
    "top_logprobs": 0,
    "max_completion_tokens": None,
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_values_are_taken(name: str) -> None:
    assert read(**{name: NEUTRAL[name]}) == read()


def test_the_turns_of_one_conversation_are_told_from_another(tmp_path: Path) -> None:
    key = tmp_path / "user.key"

    first, answer, more = (
        {"role": r, "content": c} for r, c in (("user", QUESTION), ("assistant", "A."), ("user", "B"))
    )
    of_ann = read(messages=[first], user="ann").conversation("website", user_key=key)
    assert read(messages=[{"role": "system", "content": "S"}, first, answer, more], user="ann").conversation(
        "website", user_key=key
    ) == (of_ann)
    others = [
        read(messages=[first], user="bob").conversation("website", user_key=key),
        read(messages=[first], user="ann").conversation("app", user_key=key),
        read(messages=[more], user="ann").conversation("website", user_key=key),
        read(messages=[first], user={"id": "ann"}).conversation("website", user_key=key),
    ]
    assert len({of_ann, *others}) == 5
    # Nobody can try all cards until one gives the hash.
    cards = [f"Is {number} my card?" for number in ("4111 1111 1111 1111", "5500 0000 0000 0004")]
    assert (
        len({read(messages=[{"role": "user", "content": card}]).conversation("", user_key=key) for card in cards}) == 1
    )


def test_whole_numbers_may_be_written_as_floats() -> None:
    whole = {"max_tokens": 3, "max_completion_tokens": 3, "seed": -5, "n": 2, "top_logprobs": 1}
    for name, number in whole.items():
        more = {"logprobs": True} if name == "top_logprobs" else {}
        assert read(**more, **{name: float(number)}) == read(**more, **{name: number})
        for wrong in (number + 0.5, float("inf"), float("nan"), f"{number}", True):
            with pytest.raises(RequestError, match=name):
                read(**more, **{name: wrong})


def test_a_developer_says_what_a_system_says() -> None:
    question = {"role": "user", "content": [{"type": "text", "text": QUESTION}]}
    said = [read(messages=[{"role": role, "content": "Be brief."}, question]) for role in ("system", "developer")]
    assert said[0] == said[1]
    assert [message["role"] for message in said[1].messages] == ["system", "user"]


@pytest.mark.parametrize(
    ("asked", "limit", "cut"),
    [
        ({}, 24, False),
        ({"max_tokens": 24}, 24, False),
        ({"max_tokens": 25}, 24, True),
        ({"max_completion_tokens": 1e30}, 24, True),
        ({"max_tokens": 9, "max_completion_tokens": 7}, 7, False),
    ],
)
def test_a_limit_above_the_most_is_cut(asked: dict[str, float], limit: int, cut: bool) -> None:
    found = read(**asked)
    assert (found.sampling.limit, found.cut) == (limit, cut)


def test_what_the_client_says_of_itself_is_read() -> None:
    most = {f"{i}" * 32: "x" * 512 for i in range(10, 25)}
    asked = read(metadata=most | {"conversation_id": "c1"}, user="ann", safety_identifier="bob")
    assert (asked.user, asked.conversation_id, len(asked.metadata)) == ("ann", "c1", 16)
    assert read(safety_identifier="bob", user=None).user == "bob"
    assert read(user={"id": 1}).user == ""


def named(metadata: dict[str, str], header: str) -> ChatRequest:
    body = {"model": "smol", "messages": [{"role": "user", "content": QUESTION}], "metadata": metadata}
    return chat_request(body, "smol", most_tokens=24, conversation_id=header)


def test_the_clients_name_of_a_conversation_comes_first(tmp_path: Path) -> None:
    key = tmp_path / "user.key"
    assert named({"conversation_id": "inner"}, "outer").conversation("k", user_key=key) == "inner"
    assert named({}, "outer").conversation("k", user_key=key) == "outer"
    assert len(named({}, "").conversation("k", user_key=key)) == 32
    hashed = [named({}, name).conversation("k", user_key=key) for name in ("a@b.de", "c@d.de", "x" * 65, "a\tb")]
    assert len(set(hashed)) == 4
    assert {len(each) for each in hashed} == {32}
    with pytest.raises(RequestError, match="x-conversation-id has at most 512"):
        named({}, "x" * 513)


def test_turns_of_tools_and_calls_of_them_are_text() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "balance", "arguments": '{"of": "me"}'}}
    turns = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "42"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "function", "name": "balance", "content": "43"},
    ]
    said = [(message["role"], message["content"]) for message in read(messages=turns).messages[1:]]
    assert said == [("assistant", 'balance({"of": "me"})'), ("tool", "42"), ("assistant", "No."), ("tool", "43")]
