"""What each API key used in the last minute, counted in this process; a restart gives each key its whole minute."""

from __future__ import annotations

import math
import time
from typing import Literal, NamedTuple

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

Kind = Literal["requests", "tokens"]

MINUTE_S = 60


class Taken(NamedTuple):
    """Whether something was taken of what a key may use in a minute, and what is left.

    Attributes:
        wait_s: until there is room, if nobody takes any; ``None`` where it was taken.
        left: after that.
        reset_s: seconds until what was used is free again.
    """

    wait_s: float | None
    left: int
    reset_s: float


class LocalUse:
    """The counts of this process.

    Requests are counted in a moving window, exactly. Tokens are counted by the minute, with the last minute's weighted
    by how much of it still lies in the window: a moving window would keep an entry a token.
    """

    def __init__(self) -> None:
        self._storage = MemoryStorage()
        self._moving = MovingWindowRateLimiter(self._storage)

    def take(self, kind: Kind, of: str, *, n: int, most: int) -> Taken:
        """Count ``n`` of ``most`` a minute, all of them or none.

        Args:
            of: which key: its SHA-256.
            n: no more than ``most``.
        """
        return self._requests(of, n, most=most) if kind == "requests" else self._tokens(of, n, most=most)

    def _requests(self, of: str, n: int, *, most: int) -> Taken:
        limit = RateLimitItemPerMinute(most)
        taken = self._moving.hit(limit, of, cost=n)
        stats = self._moving.get_window_stats(limit, of)
        reset_s = stats.reset_time - time.time()
        return Taken(None if taken else reset_s, max(0, stats.remaining), reset_s)

    def _tokens(self, of: str, n: int, *, most: int) -> Taken:
        taken = self._storage.acquire_sliding_window_entry(of, most, MINUTE_S, n)
        last, last_s, now, now_s = self._storage.get_sliding_window(of, MINUTE_S)
        left = most - math.floor(last * last_s / MINUTE_S + now)
        reset_s = now_s if now else last_s
        if taken:
            return Taken(None, max(0, left), reset_s)
        if last and now + n <= most:
            return Taken(last_s - (most - now - n) * MINUTE_S / last, max(0, left), reset_s)
        # Only when this minute is the last one: it ends a minute before its weight does.
        return Taken(now_s - (most - n) * MINUTE_S / max(now, 1), max(0, left), reset_s)
