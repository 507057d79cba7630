"""Counts answered and failed chat requests, and writes that to the traffic store every few seconds."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from datetime import UTC, datetime

from sqlalchemy.exc import SQLAlchemyError

from ontopic.traffic.request_counts import RequestCount, RequestCounts
from serving import metrics

logger = logging.getLogger("bentoml.ontopic")

_WRITE_EVERY_S = 10.0


class RequestCounter:
    """What a client got wrong is not counted: it is no request that could be answered.

    While the store can't be written, the counts wait in memory: it may be why the requests fail.
    """

    def __init__(self, counts: RequestCounts) -> None:
        self._counts, self._lock, self._ended = counts, threading.Lock(), threading.Event()
        self._waiting: Counter[tuple[datetime, str]] = Counter()
        self._writer = threading.Thread(target=self._write_on, name="requests", daemon=True)
        self._writer.start()

    def count(self, *, failed: bool) -> None:
        """Count a request that has ended now."""
        metrics.chat_ended(failed=failed)
        minute = datetime.now(UTC).replace(second=0, microsecond=0)
        with self._lock:
            self._waiting[minute, "failed" if failed else "answered"] += 1

    def write(self) -> None:
        """Write what was counted since the last time."""
        with self._lock:
            taken, self._waiting = self._waiting, Counter()
        minutes = sorted({minute for minute, _ in taken})
        if not minutes:
            return
        rows = [RequestCount(minute=m, answered=taken[m, "answered"], failed=taken[m, "failed"]) for m in minutes]
        try:
            self._counts.add(rows)
        except SQLAlchemyError:
            logger.exception("how many requests were answered could not be stored; it is tried again")
            with self._lock:
                self._waiting.update(taken)

    def close(self) -> None:
        """Write what is left, and end."""
        self._ended.set()
        self._writer.join()
        self.write()
        self._counts.close()

    def _write_on(self) -> None:
        while not self._ended.wait(_WRITE_EVERY_S):
            self.write()
