"""Many prompts asked at once: a stream in, their answers out in order."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from ontopic.endpoint.account import Account
from ontopic.endpoint.event_loop import event_loop
from ontopic.endpoint.replies import Prompt, Reply

# Prompts taken from a stream ahead of the answer that is awaited, for each request under way: enough to keep the
# server busy while one request backs off, few enough to hold in memory.
_WINDOW = 16

Answer = TypeVar("Answer")


@dataclass
class _Asked(Generic[Answer]):
    """A prompt on its way, and what came of it."""

    prompt: Prompt
    answer: Answer | None = None
    error: Exception | None = None
    is_done: bool = False


class PromptStream(Generic[Answer]):
    """Asks the prompts of one stream, for ``Endpoint.ask_all``.

    Two threads share the work: the caller's takes prompts and gives answers, the event loop's asks. They share one
    interpreter lock, and each time that one wakes the other costs milliseconds while both are busy. So prompts are
    handed over, and answers taken, in chunks, though never while the server idles.

    Args:
        ask: sends one prompt; awaited on the event loop.
        read: makes an answer of a reply, there too.
        concurrency: how many requests may be under way.
        account: counts the answers that another prompt's request gave.
    """

    def __init__(
        self,
        ask: Callable[[Prompt], Awaitable[Reply]],
        read: Callable[[Prompt, Reply], Answer],
        *,
        concurrency: int,
        account: Account,
    ) -> None:
        self._ask, self._read = ask, read
        self._concurrency, self._account = concurrency, account
        self._window: deque[_Asked[Answer] | Answer] = deque()  # taken, and not given yet
        self._under_way: dict[bytes, _Asked[Answer]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._fresh: list[_Asked[Answer]] = []  # taken, and not handed over yet
        self._handed_over = self._finished = self._awaited = 0
        self._enough = threading.Event()

    def answers(self, asked: Iterable[Prompt | Answer]) -> Iterator[Answer]:
        """See ``Endpoint.ask_all``; for one stream alone."""
        try:
            for item in asked:
                self._take(item)
                if len(self._window) > _WINDOW * self._concurrency:
                    self._wait_for_first()
                while self._window and self._is_ready():
                    yield self._first()
            while self._window:
                self._wait_for_first()
                yield self._first()
        finally:
            event_loop().call_soon_threadsafe(self._give_up)

    def _take(self, item: Prompt | Answer) -> None:
        if not isinstance(item, Prompt):
            self._window.append(item)
        elif item.key in self._under_way:
            self._account.cached += 1
            self._window.append(self._under_way[item.key])
        else:
            asked = self._under_way[item.key] = _Asked(item)
            self._fresh.append(asked)
            self._window.append(asked)
            is_idle = self._handed_over - self._finished < self._concurrency
            if len(self._fresh) >= self._concurrency or is_idle:
                self._hand_over()

    def _hand_over(self) -> None:
        if self._fresh:
            self._handed_over += len(self._fresh)
            event_loop().call_soon_threadsafe(self._start, self._fresh)
            self._fresh = []

    def _is_ready(self) -> bool:
        first = self._window[0]
        return not isinstance(first, _Asked) or first.is_done

    def _wait_for_first(self) -> None:
        self._hand_over()
        while not self._is_ready():
            self._enough.clear()
            self._awaited = min(self._finished + self._concurrency, self._handed_over)
            if self._finished < self._awaited and not self._is_ready():
                self._enough.wait()

    def _first(self) -> Answer:
        entry = self._window.popleft()
        if not isinstance(entry, _Asked):
            return entry
        # Not before: what looked for the answer where ``read`` put it, and missed it, may still come for it here.
        self._under_way.pop(entry.prompt.key, None)
        if entry.error:
            raise entry.error
        return cast(Answer, entry.answer)

    # On the event loop:

    def _start(self, chunk: Sequence[_Asked[Answer]]) -> None:
        for asked in chunk:
            task = event_loop().create_task(self._ask_one(asked))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ask_one(self, asked: _Asked[Answer]) -> None:
        try:
            asked.answer = self._read(asked.prompt, await self._ask(asked.prompt))
        except Exception as error:
            asked.error = error
        finally:
            asked.is_done = True
            self._finished += 1
            if self._finished in (self._awaited, self._handed_over):
                self._enough.set()

    def _give_up(self) -> None:
        for task in self._tasks:
            task.cancel()
