"""Asking a served model many questions at once."""

from __future__ import annotations

import asyncio
import os
import random
import time
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from ontopic.data.labelled import Question
from ontopic.errors import UserError
from ontopic.progress import Advance

if TYPE_CHECKING:
    from openai.resources.chat import AsyncCompletions


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
        ``error``; the others go on.
    """
    from openai import AsyncOpenAI

    turns = asyncio.Semaphore(concurrency)

    async def ask(completions: AsyncCompletions, messages: list[dict[str, str]]) -> Answer:
        async with turns:
            answer = await _ask(completions, messages, model=model, max_tokens=max_tokens)
            if advance:
                advance(1)
            return answer

    async def ask_each() -> list[Answer]:
        async with AsyncOpenAI(base_url=base_url, api_key=api_key) as client:
            return list(await asyncio.gather(*(ask(client.chat.completions, messages) for messages in conversations)))

    return asyncio.run(ask_each())


@dataclass
class Sent:
    """What became of questions that were sent, so far.

    Attributes:
        latencies_s: seconds from the time that a question was due to its whole answer; of those answered.
        error: the first one.
    """

    failed: int = 0
    latencies_s: array[float] = field(default_factory=lambda: array("d"))
    error: str | None = None

    @property
    def answered(self) -> int:
        """How many have an answer."""
        return len(self.latencies_s)

    def __str__(self) -> str:
        latencies = ""
        if self.latencies_s:
            import numpy as np

            p50, p95 = np.quantile(self.latencies_s, [0.5, 0.95])
            latencies = f", latency p50 {p50:.3f} s, p95 {p95:.3f} s"
        return f"{self.answered} answered, {self.failed} failed{latencies}"


def ask_at_rate(
    questions: Iterable[str],
    base_url: str,
    *,
    model: str,
    api_key: str,
    max_tokens: int,
    rate: float,
    sent: Sent,
    advance: Advance,
) -> None:
    """Ask a question every 1 / ``rate`` seconds, whether or not the earlier ones are answered (an open loop).

    A question that could not be sent in time, since this machine or the server was busy, waits from the time that it
    was due. Nothing is asked twice.

    Args:
        base_url: of an OpenAI-compatible server, with its ``/v1``.
        rate: questions a second.
        sent: is filled as answers come.
        advance: called with 1 for each question that is answered or has failed.
    """

    from openai import AsyncOpenAI

    async def ask(completions: AsyncCompletions, question: str, *, due: float) -> None:
        answer = await _ask(completions, [{"role": "user", "content": question}], model=model, max_tokens=max_tokens)
        if answer.error:
            sent.failed += 1
            sent.error = sent.error or answer.error
        else:
            sent.latencies_s.append(time.monotonic() - due)
        advance(1)

    async def ask_each() -> None:
        async with (
            AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0) as client,
            asyncio.TaskGroup() as tasks,
        ):
            completions = client.chat.completions  # imported on first use, before the clock runs
            start = time.monotonic()
            for number, question in enumerate(questions):
                due = start + number / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                tasks.create_task(ask(completions, question, due=due))

    asyncio.run(ask_each())


def questions_to_send(rows: Sequence[Question], count: int | None, *, in_scope_share: float | None) -> list[str]:
    """Which questions to ask, shuffled by a fixed seed; all come up as often as each other, give or take one.

    Args:
        count: how many; where ``None``, as many as there are.
        in_scope_share: of them; where ``None``, it is left as it is.

    Raises:
        UserError: there is no question of a kind that is asked for.
    """
    count = len(rows) if count is None else count
    chance, chosen = random.Random(0), list[str]()
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
        chosen += [question.question for question in islice(cycle(kind), n)]
    chance.shuffle(chosen)
    return chosen


def key_of(variable: str | None) -> str:
    """The key in an environment variable; where no variable is named, a word, for a server that asks for no key.

    Raises:
        UserError: the variable is not set.
    """
    if variable is None:
        return "none"
    if key := os.environ.get(variable):
        return key
    raise UserError(f"{variable} is not set; put the key into .env or the environment")


async def _ask(completions: AsyncCompletions, messages: list[dict[str, str]], *, model: str, max_tokens: int) -> Answer:
    try:
        response = await completions.with_raw_response.create(
            model=model,
            messages=messages,  # type: ignore[arg-type]
            max_tokens=max_tokens,
            temperature=0,
        )
        content = response.parse().choices[0].message.content
        return Answer(record_id=response.headers.get("x-ontopic-record-id", ""), answer=content or "")
    # Besides the client's own errors: text that is not UTF-8, a body that is not an answer.
    except Exception as error:
        return Answer(error=f"{type(error).__name__}: {error}")
