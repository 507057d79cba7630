"""The guard of what is served: a process of its own, which judges in batches whatever waits.

A process, as its judge would otherwise take turns with the generating thread for the interpreter and for torch's
threads; it computes on one thread. What comes while it judges goes into the next batch together, so that many clients
cost little and one waits for nobody.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from pydantic import TypeAdapter

from ontopic.config.policy import Refusals
from ontopic.errors import UserError
from ontopic.judges.guard.guard import Asked, Opinion
from serving import metrics
from serving.guarding import Guarding

logger = logging.getLogger("bentoml.ontopic")

DOWN, TOO_SLOW = "down", "too slow"
_ROOT = Path(__file__).resolve().parents[1]
_READY_S = 120.0
_AGAIN_S = 1.0  # until a process that ended is started anew
_MOST = 64  # asked together: a larger batch would keep who comes next waiting
_OPINIONS = TypeAdapter(list[Opinion])


class ServedGuard:
    """A running guard, asked from the event loop. It never raises: what it cannot say is a failure in its opinion.

    The process is started by the constructor, and anew where it ends by itself. ``wait_until_ready`` before what is
    served is called ready, else the first questions find it down.

    Attributes:
        guarding: its settings.
        refusals: what goes out in place of what it stops.

    Raises:
        UserError: its card cannot be read.
    """

    def __init__(self, guarding: Guarding) -> None:
        self.guarding = guarding
        self._waiting: list[tuple[Asked, Future[Opinion]]] = []
        self._changed = threading.Condition()
        self._ready, self._closed = threading.Event(), False
        self._tried = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self.refusals = _refusals(guarding.card)
        threading.Thread(target=self._run, name="guard", daemon=True).start()

    @property
    def pid(self) -> int | None:
        """Of its process; ``None`` while there is none."""
        return self._process.pid if self._process else None

    def wait_until_ready(self) -> bool:
        """Whether it is ready; returns once it is, or has failed to start."""
        self._tried.wait(_READY_S)
        if not self._ready.is_set():
            logger.error(
                "the guard is down; its questions go by serving.guard_on_failure: %s", self.guarding.on_failure
            )
        return self._ready.is_set()

    async def opinion(self, asked: Asked) -> Opinion:
        """What the guard says, or why it says nothing."""
        stage, start = "question" if asked.answer is None else "answer", time.perf_counter()
        future = Future[Opinion]()
        with self._changed:
            if not self._ready.is_set() or self._closed:
                found = Opinion(failure=DOWN)
                metrics.guarded(stage, "failed", seconds=0.0)
                return found
            self._waiting.append((asked, future))
            self._changed.notify()
        try:
            found = await asyncio.wait_for(asyncio.wrap_future(future), self.guarding.timeout_s)
        except TimeoutError:
            logger.warning("the guard was too slow: no opinion within %g s", self.guarding.timeout_s)
            found = Opinion(failure=TOO_SLOW)
        decision = "failed" if found.failure else "stopped" if found.stops else "passed"
        metrics.guarded(stage, decision, seconds=time.perf_counter() - start)
        return found

    def close(self) -> None:
        """Ask it nothing more, and end its process."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._process is not None:
            self._process.kill()

    def _run(self) -> None:
        while not self._closed:
            try:
                self._serve(self._start())
            except (OSError, ValueError, EOFError) as error:
                if not self._closed:
                    logger.error("the guard is down, and is started anew in %g s: %s", _AGAIN_S, error)
            self._ready.clear()
            self._tried.set()
            self._fail_waiting()
            if self._process is not None:
                self._process.kill()
                self._process.wait()
            with self._changed:
                self._changed.wait_for(lambda: self._closed, _AGAIN_S)

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.guard_process", str(self.guarding.card)],
            cwd=_ROOT,
            # One thread, and in the folder of ours whatever the service was started in.
            env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._process = process
        if self._closed:
            process.kill()
        _line(process)
        with self._changed:
            self._ready.set()
        self._tried.set()
        return process

    def _serve(self, process: subprocess.Popen[bytes]) -> None:
        while batch := self._next():
            asked = [each.model_dump(mode="json") for each, _ in batch]
            try:
                assert process.stdin is not None  # noqa: S101 (a pipe was asked for)
                process.stdin.write(json.dumps(asked).encode() + b"\n")
                process.stdin.flush()
                opinions: Sequence[Opinion] = _OPINIONS.validate_json(_line(process))
            except BaseException:
                opinions = [Opinion(failure=DOWN)] * len(batch)
                raise
            finally:
                for (_, future), opinion in zip(batch, opinions, strict=True):
                    future.set_result(opinion)

    def _next(self) -> list[tuple[Asked, Future[Opinion]]]:
        """What waits and is still waited for, once there is something; empty once it is closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return []
                taken, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            if batch := [each for each in taken if each[1].set_running_or_notify_cancel()]:
                return batch

    def _fail_waiting(self) -> None:
        with self._changed:
            taken, self._waiting = self._waiting, []
        for _, future in taken:
            if future.set_running_or_notify_cancel():
                future.set_result(Opinion(failure=DOWN))


def _refusals(card: Path) -> Refusals:
    try:
        return Refusals.model_validate(json.loads(card.read_bytes())["refusals"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{card}: the guard's card cannot be read ({error!r}); `python run.py calibrate` writes it, "
            "and serving.guard: off serves without a guard"
        ) from error


def _line(process: subprocess.Popen[bytes]) -> bytes:
    """The process's next line; raises EOFError where it has ended."""
    assert process.stdout is not None  # noqa: S101 (a pipe was asked for)
    line = process.stdout.readline()
    if not line:
        raise EOFError(f"its process ended with {process.wait()}")
    return line
