"""A chat's answers as a stream of server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio

from ontopic.models.answer import Generated, Piece
from serving import metrics
from serving.chat import TIMEOUT_S, Chat, logprobs_of, usage
from serving.chat_release import Release
from serving.errors import RequestError, error_body


@dataclass
class _Sent:
    """What a client was sent of one choice."""

    texts: list[str] = field(default_factory=list)
    tokens: int = 0

    def add(self, piece: Piece) -> None:
        self.texts.append(piece.text)
        self.tokens = piece.completion_tokens


async def events(chat: Chat) -> AsyncIterator[str]:
    """A stream's server-sent events; the records are stored before its end goes out.

    A client that leaves frees its places; what it was sent is stored as cut.
    """
    events, trace = _Events(chat), chat.guard.trace
    sent, release = [_Sent() for _ in chat.generations], Release(chat)
    answers: list[Generated] | None = None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            for i in range(len(chat.generations)):
                yield events.choice(i, {"role": "assistant", "content": "", "refusal": None})
            async for i, piece in release.pieces():
                if piece.text and not _any_text(sent):
                    metrics.first_token(time.perf_counter() - chat.start)
                sent[i].add(piece)
                yield events.choice(i, {"content": piece.text}, piece=piece)
            answers = await release.answers()
            await chat.store(answers)
        for i, answer in enumerate(answers):
            yield events.choice(i, {}, reason=answer.finish_reason)
        if chat.request.include_usage:
            yield events.event([], usage=usage(answers))
        chat.assistant.requests.count(failed=False)
        yield "data: [DONE]\n\n"
    except TimeoutError as error:
        trace.end(error)
        chat.assistant.requests.count(failed=True)
        late = RequestError(f"no answer within {TIMEOUT_S} s", status=504, code="timeout")
        yield f"data: {json.dumps({'error': error_body(late)})}\n\n"
    except RequestError as error:
        trace.end(error)
        chat.assistant.requests.count(failed=error.status >= 500)
        yield f"data: {json.dumps({'error': error_body(error)})}\n\n"
    finally:
        chat.give_up()
        if answers is None and _any_text(sent):
            with anyio.CancelScope(shield=True):
                await _store_cut(chat, sent)
        trace.end()


class _Events:
    """A chat's events, in the shape of OpenAI's API."""

    def __init__(self, chat: Chat) -> None:
        self._envelope = chat.envelope("chat.completion.chunk")
        if chat.request.include_usage:
            self._envelope["usage"] = None
        self._with_logprobs = chat.request.sampling.top_logprobs is not None

    def event(self, choices: list[dict[str, Any]], **more: Any) -> str:
        return f"data: {json.dumps(self._envelope | {'choices': choices} | more)}\n\n"

    def choice(self, i: int, delta: dict[str, Any], *, reason: str | None = None, piece: Piece | None = None) -> str:
        logprobs = logprobs_of(piece.logprobs) if piece and self._with_logprobs else None
        return self.event([{"index": i, "delta": delta, "logprobs": logprobs, "finish_reason": reason}])


def _any_text(sent: Sequence[_Sent]) -> bool:
    return any(any(each.texts) for each in sent)


async def _store_cut(chat: Chat, sent: Sequence[_Sent]) -> None:
    """Store what a client was sent before the stream broke off."""
    cut = [
        Generated("".join(each.texts), len(generation.ids), each.tokens, "length")
        for each, generation in zip(sent, chat.generations, strict=True)
    ]
    with contextlib.suppress(RequestError):  # it was logged, and there is nobody left to tell
        await chat.store(cut, whole=False)
