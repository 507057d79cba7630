"""The messages of a request as they are stored: what an earlier record of the conversation holds is pointed at.

A packed request is JSON, a list of these items, or ``None`` for the usual case:
    [first, end]              messages of the parent: of its request, and its answer after them
    "prompt"                  the system's message that many conversations share
    "question"                the record's own question
    {"role": …, "content": …} any other; what releases before wrote are lists of these
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ontopic.records import Message

_PROMPT, _QUESTION = "prompt", "question"
_ANSWERS_TRIED = 3


class Beside(NamedTuple):
    """What is stored beside a packed request.

    Attributes:
        question: the record's.
        prompt: the system's message; empty where there is none.
        before: the parent's request and its answer; empty where there is no parent.
    """

    question: str
    prompt: str = ""
    before: Sequence[Message] = ()


def prompt_of(messages: Sequence[Message]) -> str:
    """The text of the system's message that a request begins with; empty where it begins otherwise."""
    first = messages[0] if messages else None
    # PostgreSQL holds no NUL but in JSON.
    return first.content if first and first.role == "system" and "\0" not in first.content else ""


def asked_before(messages: Sequence[Message]) -> Iterator[tuple[str, str]]:
    """Questions and answers of earlier records that a request may continue, the newest first."""
    tried = 0
    for end in range(len(messages) - 1, 0, -1):
        if messages[end].role == "assistant" and tried < _ANSWERS_TRIED:
            asked = next((m.content for m in reversed(messages[:end]) if m.role == "user"), None)
            if asked is not None and "\0" not in asked + messages[end].content:  # which PostgreSQL can't look for
                tried += 1
                yield asked, messages[end].content


def pack(messages: Sequence[Message], beside: Beside) -> str | None:
    """A request's messages as they are stored beside that."""
    items = list(_items(messages, beside))
    return None if items == _usual(beside) else json.dumps(items, ensure_ascii=False, separators=(",", ":"))


def points_at_parent(packed: str | None) -> bool:
    """Whether a packed request that has a parent takes any message from it."""
    return packed is None or any(isinstance(item, list) for item in json.loads(packed))


def unpack(packed: str | None, beside: Beside) -> tuple[Message, ...]:
    """The messages that were packed."""
    items = _usual(beside) if packed is None else json.loads(packed)
    messages: list[Message] = []
    for item in items:
        if isinstance(item, list):
            messages += beside.before[slice(*item)]
        elif item == _PROMPT:
            messages.append(Message(role="system", content=beside.prompt))
        elif item == _QUESTION:
            messages.append(Message(role="user", content=beside.question))
        else:
            messages.append(Message.model_validate(item))
    return tuple(messages)


def _usual(beside: Beside) -> list[Any]:
    if beside.before:
        return [[0, len(beside.before)], _QUESTION]
    return [_PROMPT, _QUESTION] if beside.prompt else []


def _items(messages: Sequence[Message], beside: Beside) -> Iterator[Any]:
    asked, before = ([(each.role, each.content) for each in turns] for turns in (messages, beside.before))
    places: dict[tuple[str, str], list[int]] = {}
    for place, turn in enumerate(before):
        places.setdefault(turn, []).append(place)
    i, last = 0, 0
    while i < len(asked):
        turn = asked[i]
        found = places.get(turn)
        if turn == ("user", beside.question) and (not found or i == len(asked) - 1):
            yield _QUESTION
            i += 1
        elif found:
            first = last = next((place for place in found if place >= last), found[0])
            while asked[i : i + 1] == before[last : last + 1] != []:
                i, last = i + 1, last + 1
            yield [first, last]
        else:
            role, content = turn
            yield _PROMPT if beside.prompt and turn == ("system", beside.prompt) else {"role": role, "content": content}
            i += 1
