"""A batch whose answers come of coroutines: of vLLM's engine, or of another server."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import InvalidStateError, wait

from ontopic.models.answer import Generated, Generation, OverloadedError


class AsyncBatch:
    """An ``ontopic.models.answer.Batch`` on a thread with an event loop of its own.

    A subclass says how one answer is generated, and what there is to close.

    Args:
        name: of the thread.
        most_waiting: requests that may wait for their answer to begin; one more is refused.
    """

    alternatives = True

    def __init__(self, name: str, *, most_waiting: int) -> None:
        self._most_waiting = most_waiting
        self._waiting: set[Generation] = set()  # whose answer has not begun
        self._running: set[Generation] = set()
        self._closing = False
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name=name, daemon=True).start()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    def submit(self, generations: Sequence[Generation]) -> None:
        with self._lock:
            if self._closing:
                raise RuntimeError("the model is being taken out of service")
            if len(self._waiting) + len(generations) > self._most_waiting:
                raise OverloadedError(1)
            self._waiting.update(generations)
        for generation in generations:
            task = asyncio.run_coroutine_threadsafe(self._answer(generation), self._loop)
            # A cancelled answer's task is cancelled too, at which it gives up its place, or its connection.
            generation.done.add_done_callback(lambda done, task=task: done.cancelled() and task.cancel())  # type: ignore[misc]

    def close(self, timeout_s: float | None = None) -> None:
        with self._lock:
            self._closing = True
        wait([each.done for each in (*self._waiting, *self._running)], timeout_s)
        asyncio.run_coroutine_threadsafe(self._closed(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _begins(self, generation: Generation) -> None:
        """Note that an answer waits no longer."""
        self._waiting.discard(generation)
        self._running.add(generation)

    async def _answer(self, generation: Generation) -> None:
        try:
            result = await self._generated(generation)
            with contextlib.suppress(InvalidStateError):  # it was cancelled meanwhile
                generation.done.set_result(result)
        except Exception as error:
            with contextlib.suppress(InvalidStateError):
                generation.done.set_exception(error)
        finally:
            self._waiting.discard(generation)
            self._running.discard(generation)

    async def _generated(self, generation: Generation) -> Generated:
        """One answer, its pieces given to ``on_piece`` on the way; calls ``_begins`` once it has begun."""
        raise NotImplementedError

    async def _closed(self) -> None:
        """Close what the answers came of."""
        raise NotImplementedError
