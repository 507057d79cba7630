"""What both engines in this process share: requests that wait in line, and the thread that answers them."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from ontopic.models.answer import Generation, OverloadedError
from ontopic.models.growing_answer import GrowingAnswer

MOST_WAITING, SLOTS = 256, 64
CACHE_TOKENS = 16_384  # of all answers under way: with the embedded model in bfloat16 23 KB each
_YIELD_S, _YIELDED = 0.005, 19


class QueuedBatch:
    """An ``ontopic.models.answer.Batch`` on a thread of its own.

    A subclass says how answers begin (``_begin``), what a step of all of them is (``_step``), and how one gives up its
    place (``_free``).

    Args:
        most_waiting: requests that may wait for a place; one more is refused.
        slots: the most answers under way.
        yields_to: whether others are served now, for whom this batch waits between two steps, 19 times as long as the
            last took, so that it takes a twentieth of the time at most; ``None`` for none.
    """

    alternatives: bool

    def __init__(
        self, *, most_waiting: int = MOST_WAITING, slots: int = SLOTS, yields_to: Callable[[], bool] | None = None
    ) -> None:
        self._most_waiting, self._most_running, self._yields_to = most_waiting, slots, yields_to
        self._waiting: deque[Generation] = deque()
        self._answers: list[GrowingAnswer] = []
        self._changed = threading.Condition()
        self._closing = False
        self._rate = 0.0  # tokens a second, of late
        self._again_at = 0.0
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._answers)

    def submit(self, generations: Sequence[Generation]) -> None:
        with self._changed:
            if self._closing:
                raise RuntimeError("the model is being taken out of service")
            if len(self._waiting) + len(generations) > self._most_waiting:
                ahead = sum(each.sampling.limit for each in self._waiting)
                raise OverloadedError(min(60, max(1, math.ceil(ahead / self._rate))) if self._rate else 1)
            self._waiting.extend(generations)
            self._changed.notify()

    def close(self, timeout_s: float | None = None) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _begin(self, generations: Sequence[Generation]) -> list[GrowingAnswer]:
        """Begin to answer them. What can't be begun is told so, and left out."""
        raise NotImplementedError

    def _step(self) -> None:
        """Give each answer under way its next tokens, and end those that are whole by ``_end``."""
        raise NotImplementedError

    def _free(self, answer: GrowingAnswer) -> None:
        """Forget an answer that is whole, or that nobody waits for."""
        raise NotImplementedError

    def _joins(self) -> bool:
        """Whether a new answer may begin while others are under way."""
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._answers):
                    if self._closing:
                        return
                    self._changed.wait()
            self._give_way()
            start, before = time.perf_counter(), len(self._answers)
            try:
                self._drop_cancelled()
                if self._joins() and (group := self._admitted()):
                    self._answers += self._begin(group)
                if self._answers:
                    self._step()
            except Exception as error:  # out of memory, a bug: those under way hear of it, and the others go on
                self._fail(error)
            self._worked(start)
            if before:
                rate = before / (time.perf_counter() - start)
                self._rate = 0.9 * self._rate + 0.1 * rate if self._rate else rate

    def _give_way(self) -> None:
        """Wait while others are served for whom this batch waits; until its turn comes, at the latest."""
        while (
            self._yields_to is not None
            and not self._closing
            and time.perf_counter() < self._again_at
            and self._yields_to()
        ):
            time.sleep(_YIELD_S)

    def _worked(self, start: float) -> None:
        """Note that a step began then and ends now."""
        self._again_at = time.perf_counter() + _YIELDED * (time.perf_counter() - start)

    def _admitted(self) -> list[Generation]:
        """Those that wait longest and fit."""
        group: list[Generation] = []
        room = sum(answer.generation.room for answer in self._answers)
        with self._changed:
            while self._waiting and len(self._answers) + len(group) < self._most_running:
                first = self._waiting[0]
                room += first.room
                if (self._answers or group) and room > CACHE_TOKENS:
                    break
                self._waiting.popleft()
                if not first.done.cancelled():
                    group.append(first)
        return group

    def _drop_cancelled(self) -> None:
        for answer in [each for each in self._answers if each.generation.done.cancelled()]:
            self._end(answer)

    def _end(self, answer: GrowingAnswer) -> None:
        self._answers.remove(answer)
        self._free(answer)

    def _fail(self, error: Exception) -> None:
        failed, self._answers = self._answers, []
        for answer in failed:
            answer.fail(error)
            self._free(answer)
