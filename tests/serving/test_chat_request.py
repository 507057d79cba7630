"""What a request for a chat completion may say, parameter by parameter."""

from __future__ import annotations

import json
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
        ("messages[0].role", [{"role": "tool", "content": "x"}]),
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
    "metadata": {"a": "b"},
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


def test_the_turns_of_one_conversation_are_told_from_another() -> None:
    first, answer, more = (
        {"role": r, "content": c} for r, c in (("user", QUESTION), ("assistant", "A."), ("user", "B"))
    )
    of_ann = read(messages=[first], user="ann").conversation("website")
    assert read(messages=[{"role": "system", "content": "S"}, first, answer, more], user="ann").conversation(
        "website"
    ) == (of_ann)
    others = [
        read(messages=[first], user="bob").conversation("website"),
        read(messages=[first], user="ann").conversation("app"),
        read(messages=[more], user="ann").conversation("website"),
        read(messages=[first], user={"id": "ann"}).conversation("website"),
    ]
    assert len({of_ann, *others}) == 5
    # Nobody can try all cards until one gives the hash.
    cards = [f"Is {number} my card?" for number in ("4111 1111 1111 1111", "5500 0000 0000 0004")]
    assert len({read(messages=[{"role": "user", "content": card}]).conversation("") for card in cards}) == 1


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
