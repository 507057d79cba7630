"""Prompts, and what comes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NO_COMPLETION = "the server's reply is not a chat completion"


@dataclass(frozen=True)
class Prompt:
    """One chat to be completed, at temperature 0.

    Attributes:
        key: prompts of one key ask for the same, though the fences in their texts differ.
        schema: JSON schema that the reply should have; left out where the server refuses it.
        logprobs: whether to ask for the log-probabilities of the reply's tokens; left out where the server refuses it.
    """

    messages: Sequence[Mapping[str, str]]
    key: bytes
    schema: Mapping[str, Any] | None = None
    logprobs: bool = False


@dataclass(frozen=True)
class Token:
    """A token of a reply, in UTF-8, and the log-probabilities of the likeliest tokens at its place, its own among
    them."""

    text: bytes
    top: Mapping[bytes, float]


@dataclass(frozen=True)
class Reply:
    """What came of a prompt.

    Attributes:
        text: what the model says; empty where it says nothing or there is a ``failure``.
        tokens: with their log-probabilities, where these were asked for and the server gives them.
        finish_reason: the server's word for why the model stopped: ``stop``, ``length``, ``content_filter``.
        failure: why there is no completion; ``None`` where there is one.
    """

    text: str = ""
    tokens: Sequence[Token] = ()
    finish_reason: str | None = None
    failure: str | None = None


def read_reply(completion: Any, *, with_tokens: bool) -> Reply:
    """The reply in the JSON of a chat completion; a failure where that is not one."""
    try:
        choice = completion["choices"][0]
        text = choice["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return Reply(failure=NO_COMPLETION)
    reason = choice.get("finish_reason")
    return Reply(
        text=text if isinstance(text, str) else "",
        tokens=_tokens(choice.get("logprobs")) if with_tokens else (),
        finish_reason=reason if isinstance(reason, str) else None,
    )


def read_usage(completion: Any) -> tuple[int | None, int | None]:
    """The numbers of prompt and completion tokens of a chat completion, ``None`` where it does not say."""
    usage = completion.get("usage") if isinstance(completion, dict) else None
    return _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")


def _count(usage: Any, name: str) -> int | None:
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if type(count) is int and count >= 0 else None


def _tokens(logprobs: Any) -> list[Token]:
    """The tokens of ``choices[0].logprobs``; an empty list where it is not of OpenAI's form."""

    def text(entry: Mapping[str, Any]) -> bytes:
        # A character can be spread over tokens, so that only their bytes join to the reply.
        return bytes(entry["bytes"]) if entry.get("bytes") else entry["token"].encode()

    try:
        return [
            Token(text(entry), {text(top): float(top["logprob"]) for top in (*entry["top_logprobs"], entry)})
            for entry in logprobs["content"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        return []
