"""Asking a served model many questions at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import time
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

from openai import APIStatusError, AsyncOpenAI, OpenAIError
from pydantic import BaseModel, ConfigDict

from ontopic.config.network import http_options
from ontopic.data.labelled import Question
from ontopic.endpoint.client import key_in, shown_url
from ontopic.endpoint.http_client import ReplyClient
from ontopic.endpoint.refusals import error_told, failure_of
from ontopic.endpoint.server_error import Final, ServerError
from ontopic.errors import UserError
from ontopic.progress import Advance

KEY_VARIABLE = "OPENAI_API_KEY"
NO_KEY = "none"
"""What is sent to a server that asks for no key: the client wants one."""


class Answer(BaseModel):
    """What came back for one question.

    Attributes:
        record_id: the id of its record in the traffic; empty where the server gives none, or where it failed.
        answer: the text; empty where it failed.
        error: why there is no answer; ``None`` where there is one.
    """

    model_config = ConfigDict(frozen=True)
    record_id: str = ""
    answer: str = ""
    error: str | None = None


def ask_all(
    conversations: Sequence[list[dict[str, str]]],
    base_url: str,
    *,
    model: str,
    api_key: str,
    max_tokens: int,
    concurrency: int,
    advance: Advance | None = None,
) -> list[Answer]:
    """Ask for the next message of each conversation, at most ``concurrency`` at a time.

    Args:
        base_url: of an OpenAI-compatible server, with its ``/v1``.
        advance: called with 1 for each that is answered or has failed.

    Returns:
        An answer for each, in order. One that fails after the client's own retries carries its
        ``error``; the others go on, unless the server would refuse them for the same.

    Raises:
        UserError: the server is elsewhere, and the environment's proxy cannot be used.
    """
    turns = asyncio.Semaphore(concurrency)

    async def ask(asker: _Asker, messages: list[dict[str, str]]) -> Answer:
        async with turns:
            answer = await asker.ask(messages)
            if advance:
                advance(1)
            return answer

    async def ask_each() -> list[Answer]:
        async with _client(base_url, api_key) as client:
            asker = _Asker(client, model, max_tokens=max_tokens)
            return list(await asyncio.gather(*(ask(asker, messages) for messages in conversations)))

    return asyncio.run(ask_each())


class Asked(BaseModel):
    """What became of questions that were sent.

    Attributes:
        latency_p50_s, latency_p95_s: from the time that a question was due to its whole answer; ``None`` without one.
        error: the first one.
        refusal: as ``Sent`` has it.
    """

    model_config = ConfigDict(frozen=True)
    answered: int
    failed: int
    latency_p50_s: float | None
    latency_p95_s: float | None
    error: str | None
    refusal: str | None


@dataclass
class Sent:
    """What became of questions that were sent, so far.

    Attributes:
        latencies_s: seconds from the time that a question was due to its whole answer; of those answered.
        error: the first one.
        refusal: what the server refuses every question for, so that asking has stopped; ``None`` where it has not.
    """

    failed: int = 0
    latencies_s: array[float] = field(default_factory=lambda: array("d"))
    error: str | None = None
    refusal: Final | None = None

    @property
    def answered(self) -> int:
        """How many have an answer."""
        return len(self.latencies_s)

    def shown(self) -> Asked:
        """As it stands."""
        p50 = p95 = None
        if self.latencies_s:
            import numpy as np

            p50, p95 = map(float, np.quantile(self.latencies_s, [0.5, 0.95]))
        return Asked(
            answered=self.answered,
            failed=self.failed,
            latency_p50_s=p50,
            latency_p95_s=p95,
            error=self.error,
            refusal=self.refusal,
        )

    def __str__(self) -> str:
        now, latencies = self.shown(), ""
        if now.latency_p50_s is not None:
            latencies = f", latency p50 {now.latency_p50_s:.3f} s, p95 {now.latency_p95_s:.3f} s"
        return f"{now.answered} answered, {now.failed} failed{latencies}"


def ask_at_rate(
    conversations: Iterable[list[dict[str, str]]],
    base_url: str,
    *,
    model: str,
    api_key: str,
    max_tokens: int,
    rate: float,
    sent: Sent,
    advance: Advance,
) -> None:
    """Ask for the next message of a conversation every 1 / ``rate`` seconds, whether or not the others are answered (an
    open loop).

    A question that could not be sent in time, since this machine or the server was busy, waits from the time that it
    was due. Nothing is asked twice, but without an option that the model refuses. Asking stops where the server refuses
    the key or the model, or the quota is spent.

    Args:
        base_url: of an OpenAI-compatible server, with its ``/v1``.
        rate: questions a second.
        sent: is filled as answers come.
        advance: called with 1 for each question that is answered or has failed.

    Raises:
        UserError: the server is elsewhere, and the environment's proxy cannot be used.
    """

    async def ask(asker: _Asker, messages: list[dict[str, str]], *, due: float) -> None:
        answer = await asker.ask(messages)
        if answer.error:
            sent.failed += 1
            sent.error = sent.error or answer.error
        else:
            sent.latencies_s.append(time.monotonic() - due)
        advance(1)

    async def ask_each() -> None:
        async with _client(base_url, api_key, max_retries=0) as client, asyncio.TaskGroup() as tasks:
            asker = _Asker(client, model, max_tokens=max_tokens)
            start = time.monotonic()
            for number, messages in enumerate(conversations):
                due = start + number / rate
                if await asker.refuses_all(within_s=due - time.monotonic()):
                    break
                tasks.create_task(ask(asker, messages, due=due))
        if asker.refusal:  # maybe of one that was still under way at the end
            sent.error, sent.refusal = asker.error, asker.refusal

    asyncio.run(ask_each())


def questions_to_send(rows: Sequence[Question], count: int | None, *, in_scope_share: float | None) -> list[Question]:
    """Which questions to ask, shuffled by a fixed seed; all come up as often as each other, give or take one.

    Args:
        count: how many; where ``None``, as many as there are.
        in_scope_share: of them; where ``None``, it is left as it is.

    Raises:
        UserError: there is no question of a kind that is asked for.
    """
    count = len(rows) if count is None else count
    chance, chosen = random.Random(0), list[Question]()
    kinds = [(list(rows), count)]
    if in_scope_share is not None:
        inside = round(count * in_scope_share)
        kinds = [([q for q in rows if q.in_scope], inside), ([q for q in rows if not q.in_scope], count - inside)]
    for kind, n in kinds:
        if n and not kind:
            have = sum(row.in_scope for row in rows)
            raise UserError(
                f"of the questions {have} are in scope and {len(rows) - have} out of scope, and --in-scope-share needs "
                "at least 1 of each; add some, or leave it out"
            )
        chance.shuffle(kind)
        chosen += islice(cycle(kind), n)
    chance.shuffle(chosen)
    return chosen


def key_of(variable: str | None) -> str:
    """The key in an environment variable; of ``OPENAI_API_KEY`` where none is named, and there a word where that is not
    set either, for a server that asks for no key.

    Raises:
        UserError: the variable that is named is not set, or holds what no key can be.
    """
    name = variable or KEY_VARIABLE
    key = key_in(name)
    if not key and variable:
        raise UserError(f"{variable} is not set; put the key into .env or the environment")
    return key or NO_KEY


class _Asker:
    """Asks one model: learns which options it does not take, and whether the server refuses whatever is asked.

    Attributes:
        refusal: what the server refuses every request for; ``None`` while it does not.
        error: with its words.
    """

    def __init__(self, client: AsyncOpenAI, model: str, *, max_tokens: int) -> None:
        self._client, self._completions = client, client.chat.completions  # imported on first use, so before any clock
        self._model = model
        self._options: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 0}
        self._refused = asyncio.Event()
        self._answered = False
        self.refusal: Final | None = None
        self.error = ""

    async def refuses_all(self, *, within_s: float) -> bool:
        """Whether the server refuses whatever is asked; waits so long for that."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._refused.wait(), max(0.0, within_s))
        return self._refused.is_set()

    async def ask(self, messages: list[dict[str, str]]) -> Answer:
        if self.refusal:
            return Answer(error=self.error)
        try:
            return await self._asked(messages)
        except OpenAIError as error:
            text = failure_of(error, address=shown_url(self._client.base_url).rstrip("/"))
            if isinstance(error, APIStatusError):
                self._note(error_told(error), text)
            return Answer(error=text)
        except UnicodeEncodeError:
            return Answer(error="the question cannot be sent: it is not valid Unicode")

    def _note(self, told: ServerError, text: str) -> None:
        """Stop where no other question can be answered either; after an answer, a question may be what is refused."""
        if told.final and not self.refusal and (told.is_certain or not self._answered):
            self.refusal, self.error = told.final, text
            self._refused.set()

    async def _asked(self, messages: list[dict[str, str]]) -> Answer:
        options = self._options
        while True:
            try:
                response = await self._completions.with_raw_response.create(
                    model=self._model,
                    messages=messages,  # type: ignore[arg-type]
                    **options,
                )
            except APIStatusError as error:
                fewer = _without_refused(options, error_told(error).told)
                if fewer is None:
                    raise
                options = fewer
            else:
                self._options = options  # it was the options, and not the question
                return self._read(response.text, response.headers.get("x-ontopic-record-id", ""))

    def _read(self, body: str, record_id: str) -> Answer:
        """The answer in the body of a chat completion, or what stands there in its place."""
        try:
            completion = json.loads(body)
        except (ValueError, RecursionError):
            completion = None
        try:
            content = completion["choices"][0]["message"]["content"]
            if isinstance(content, list):
                content = "".join(part["text"] for part in content if part.get("type") == "text")
        except (LookupError, TypeError, AttributeError):
            return Answer(error="the server's reply is not a chat completion")
        self._answered = True
        return Answer(record_id=record_id, answer=content if isinstance(content, str) else "")


def _client(base_url: str, api_key: str, *, max_retries: int = 2) -> AsyncOpenAI:
    http_client = ReplyClient(**http_options(base_url))
    return AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=max_retries, http_client=http_client)


def _without_refused(options: Mapping[str, Any], said: str) -> dict[str, Any] | None:
    """The options without one that a refusal names; the token limit goes by its other name first."""
    for name in options:
        if re.search(rf"\b{name}\b", said):
            fewer = {other: value for other, value in options.items() if other != name}
            return fewer | ({"max_completion_tokens": options[name]} if name == "max_tokens" else {})
    return None
