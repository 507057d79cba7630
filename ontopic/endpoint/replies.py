"""Prompts, and what comes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ontopic.endpoint.inert import inert, one_line
from ontopic.endpoint.reasoning import without_reasoning
from ontopic.endpoint.server_error import MOST_WORDS, page_words

NO_COMPLETION = "the server's reply is not a chat completion"

# By these words a reply is whole: of OpenAI, TGI, Anthropic and their like. Any other, such as ``length``,
# ``content_filter``, ``SAFETY`` or ``abort``, is a reply that is cut, withheld or broken off.
_WHOLE = {
    *("stop", "eos", "eos_token", "stop_token", "stop_sequence", "end_turn", "end", "done", "finish", "finished"),
    *("complete", "completed", "tool_calls", "function_call", "tool_use"),
}
_REASONING = ("reasoning_content", "reasoning", "thinking", "reasoning_details")


@dataclass(frozen=True)
class Prompt:
    """One chat to be completed, at temperature 0.

    Attributes:
        key: prompts of one key ask for the same, though the fences in their texts differ.
        schema: JSON schema that the reply should have; left out where the server refuses it.
        logprobs: whether to ask for the log-probabilities of the reply's tokens; left out where the server refuses it.
        quotable: the texts of strangers in the messages, which a reply may quote.
    """

    messages: Sequence[Mapping[str, str]]
    key: bytes
    schema: Mapping[str, Any] | None = None
    logprobs: bool = False
    quotable: Sequence[str] = ()


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
        text: what the model says, without its reasoning and inert; empty where it says nothing or there is a
            ``failure``.
        tokens: with their log-probabilities, where these were asked for and the server gives them.
        failure: why there is no whole reply; ``None`` where there is one.
    """

    text: str = ""
    tokens: Sequence[Token] = ()
    failure: str | None = None


def read_reply(completion: Any, *, with_tokens: bool) -> Reply:
    """The reply in the JSON of a chat completion; a failure where that is not one, or not a whole reply.

    A reply is read by its parts: those of text are joined, those of reasoning are none of it.
    """
    choices = completion.get("choices") if isinstance(completion, dict) else None
    if not isinstance(choices, list) or not choices:
        return Reply(failure=f"{NO_COMPLETION}: it has no choices")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return Reply(failure=f"{NO_COMPLETION}: its choice has no message")
    if len(choices) > 1 and any(other.get("message") != message for other in choices if isinstance(other, dict)):
        return Reply(failure=f"the server's reply has {len(choices)} choices where one was asked for")
    if failure := _not_whole(choice, message):
        return Reply(failure=failure)
    said, refusal = _texts(message.get("content"))
    if refusal:
        return Reply(failure=_refused(refusal))
    text = without_reasoning(said)
    if not text and (said.strip() or any(message.get(name) for name in _REASONING)):
        return Reply(failure="the model reasoned, and gave no reply after it")
    if not text and (message.get("tool_calls") or message.get("function_call")):
        return Reply(failure="the model called a tool, and gave no reply")
    return Reply(
        text=inert(text or ""),
        tokens=_tokens(choice.get("logprobs")) if with_tokens else (),
    )


def _not_whole(choice: Mapping[str, Any], message: Mapping[str, Any]) -> str | None:
    """Why a choice is no whole reply."""
    if error := choice.get("error"):
        words = error.get("message") if isinstance(error, dict) else error
        return f"the server ended the reply with an error: {one_line(str(words), MOST_WORDS)}"
    reason = choice.get("finish_reason")
    if isinstance(reason, str) and reason.strip() and reason.strip().lower() not in _WHOLE:
        return f"the reply is not whole: it ended for {one_line(reason, 40)}"
    refusal = message.get("refusal")
    return _refused(refusal) if isinstance(refusal, str) and refusal.strip() else None


def _refused(words: str) -> str:
    return f"the model refused: {one_line(words, MOST_WORDS)}"


def _texts(content: Any) -> tuple[str, str]:
    """What the parts of a message's content say, and what they refuse."""
    if isinstance(content, str):
        return content, ""
    said, refused = [], []
    for part in content if isinstance(content, list) else []:
        if isinstance(part, str):
            said.append(part)
        elif isinstance(part, dict) and part.get("type") in ("text", "output_text"):
            said.append(part["text"] if isinstance(part.get("text"), str) else "")
        elif isinstance(part, dict) and part.get("type") == "refusal":
            refused.append(str(part.get("refusal") or "no reason given"))
    return "".join(said), " ".join(refused)


def read_completion(body: bytes) -> Any:
    """The JSON of a reply.

    Raises:
        ValueError: it is none; the message is the failure.
    """
    try:
        return json.loads(body)
    except UnicodeDecodeError:
        found = "its text is not UTF-8"
    except (ValueError, RecursionError):
        text = body.decode(errors="replace").strip()
        if re.match(r"(data|event|id|retry)?:", text):
            found = "it is a stream of events, which was not asked for"
        else:
            found = f"it says {words!r}" if (words := page_words(text)) and text[0] not in "{[" else "it is no JSON"
            found = found if text else "it is empty"
    raise ValueError(f"{NO_COMPLETION}: {found}")


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
