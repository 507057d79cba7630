"""Asking a served model many questions at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from openai import AsyncOpenAI

from ontopic.progress import Advance


@dataclass(frozen=True)
class Answer:
    """What came back for one question.

    Attributes:
        record_id: the id of its record in the traffic; empty where the server gives none, or where it failed.
        answer: the text; empty where it failed.
        error: why there is no answer; ``None`` where there is one.
    """

    record_id: str = ""
    answer: str = ""
    error: str | None = None


def ask_all(
    questions: Sequence[str],
    base_url: str,
    model: str,
    api_key: str,
    max_tokens: int,
    concurrency: int,
    advance: Advance | None = None,
) -> list[Answer]:
    """Ask each question as one user message, at most ``concurrency`` at a time.

    Args:
        base_url: of an OpenAI-compatible server, with its ``/v1``.
        advance: called with 1 for each question that is answered or has failed.

    Returns:
        An answer for each question, in order. A question that fails after the client's own retries carries its
        ``error``; the others go on.
    """
    turns = asyncio.Semaphore(concurrency)

    async def ask(client: AsyncOpenAI, question: str) -> Answer:
        async with turns:
            try:
                response = await client.chat.completions.with_raw_response.create(
                    model=model, messages=[{"role": "user", "content": question}], max_tokens=max_tokens, temperature=0
                )
                content = response.parse().choices[0].message.content
                answer = Answer(response.headers.get("x-ontopic-record-id", ""), content or "")
            # Besides the client's own errors: text that is no UTF-8, a body that is no answer.
            except Exception as error:
                answer = Answer(error=f"{type(error).__name__}: {error}")
            if advance:
                advance(1)
            return answer

    async def ask_each() -> list[Answer]:
        async with AsyncOpenAI(base_url=base_url, api_key=api_key) as client:
            return list(await asyncio.gather(*(ask(client, question) for question in questions)))

    return asyncio.run(ask_each())
