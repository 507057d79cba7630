"""Customers who ask through the balancer, and a ledger on disk of what they were answered."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import os
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import openai
from pydantic import BaseModel, ConfigDict

_ATTEMPTS: contextvars.ContextVar[list[float]] = contextvars.ContextVar("attempts")
_LONGEST_S = 60


class Asked(BaseModel):
    """A line of the ledger: one question of a customer's, however often it was sent.

    Attributes:
        ask: its own number, which its records bear as metadata.
        attempts: how often it was sent.
        record: the answer's; empty where there was none.
        failed: why there was none, empty where there was one: a status, or the name of what the client raised.
        seconds: until its answer, or until it was given up.
        at: by the real clock.
    """

    model_config = ConfigDict(frozen=True)
    ask: str
    conversation: str
    attempts: int
    record: str = ""
    version: str = ""
    sha256: str = ""
    failed: str = ""
    seconds: float
    at: float


class Load:
    """So many customers, each of whom asks again once answered, after a pause.

    Args:
        ledger: a file, a line a question, on the disk before the customer goes on.
        per_second: questions of all customers together, at most.
    """

    def __init__(
        self, url: str, key: str, *, model: str, questions: Sequence[str], ledger: Path, per_second: float = 3.0
    ) -> None:
        self._url, self._key, self._model, self._questions = url, key, model, list(questions)
        self._ledger, self._pause = ledger, CUSTOMERS / per_second
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def answered(self) -> bool:
        """Whether anybody was."""
        return any(asked.record for asked in read_ledger(self._ledger))

    def stop(self) -> list[Asked]:
        """Let each customer have their answer and ask no more; the whole ledger."""
        assert self._thread.is_alive()  # else a customer's exception has ended it
        self._ending.set()
        self._thread.join()
        return read_ledger(self._ledger)

    async def _run(self) -> None:
        async def count(_: httpx.Request) -> None:
            _ATTEMPTS.get().append(time.monotonic())

        http_client = openai.DefaultAsyncHttpxClient(trust_env=False, event_hooks={"request": [count]})
        async with openai.AsyncOpenAI(
            base_url=self._url, api_key=self._key, max_retries=8, timeout=_LONGEST_S, http_client=http_client
        ) as client:
            with self._ledger.open("a") as file:
                await asyncio.gather(*(self._customer(number, client, file) for number in range(CUSTOMERS)))

    async def _customer(self, number: int, client: openai.AsyncOpenAI, file: Any) -> None:
        chance = random.Random(number)
        asks = 0
        while not self._ending.is_set():
            conversation = f"customer-{number}-{asks // TURNS}"
            said = await self._ask(f"{number}-{asks}", conversation, chance.choice(self._questions), client)
            file.write(said.model_dump_json() + "\n")
            file.flush()
            os.fsync(file.fileno())
            asks += 1
            await asyncio.sleep(max(0.0, self._pause * chance.uniform(0.5, 1.5) - said.seconds))

    async def _ask(self, ask: str, conversation: str, question: str, client: openai.AsyncOpenAI) -> Asked:
        attempts, begun = list[float](), time.monotonic()
        _ATTEMPTS.set(attempts)
        said: dict[str, Any] = {"ask": ask, "conversation": conversation, "at": time.time()}
        try:
            answered = await client.chat.completions.with_raw_response.create(
                model=self._model,
                messages=[{"role": "user", "content": question}],
                max_tokens=8,
                metadata={"ask": ask, "conversation_id": conversation},
            )
            text = answered.parse().choices[0].message.content or ""
            said |= {
                "record": answered.headers["x-ontopic-record-id"],
                "version": answered.headers["x-ontopic-model-version"],
                "sha256": hashlib.sha256(text.encode()).hexdigest(),
            }
        except openai.APIStatusError as error:
            said["failed"] = str(error.status_code)
        except openai.APIError as error:
            said["failed"] = type(error).__name__
        return Asked(**said, attempts=len(attempts), seconds=time.monotonic() - begun)


CUSTOMERS, TURNS = 8, 5


def read_ledger(path: Path) -> list[Asked]:
    """All that is in it by now."""
    if not path.exists():
        return []
    return [Asked.model_validate_json(line) for line in path.read_text().splitlines(keepends=True) if line[-1] == "\n"]
