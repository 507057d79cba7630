"""How much each API key may use in a minute.

The counts are kept in this process, for the service has one worker; a restart gives each key its whole minute again.
"""

from __future__ import annotations

import math
import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from serving.errors import RequestError
from serving.keys import Key

_MINUTE_S = 60


class RateLimits:
    """The use of all keys in the last minute."""

    def __init__(self) -> None:
        self._storage = MemoryStorage()
        self._requests = MovingWindowRateLimiter(self._storage)

    def of(self, key: Key) -> Allowance:
        """What ``key`` may still use."""
        return Allowance(self._storage, self._requests, key=key)


class Allowance:
    """What one key may still use.

    Requests are counted in a moving window, exactly. Tokens are counted by the minute, with the last minute's weighted
    by how much of it still lies in the window: a moving window would keep an entry a token.
    """

    def __init__(self, storage: MemoryStorage, requests: MovingWindowRateLimiter, *, key: Key) -> None:
        self._storage, self._moving, self._id = storage, requests, key.sha256
        self._requests = None if key.requests_per_minute is None else RateLimitItemPerMinute(key.requests_per_minute)
        self._tokens = key.tokens_per_minute

    def take_request(self) -> None:
        """Count a request.

        Raises:
            RequestError: the key has no request left.
        """
        if self._requests is None or self._moving.hit(self._requests, self._id):
            return
        wait_s = self._moving.get_window_stats(self._requests, self._id).reset_time - time.time()
        raise _exceeded(f"{self._requests.amount} requests", wait_s)

    def take_tokens(self, n: int) -> None:
        """Count the tokens that a request may come to use: its prompt's and, up to their limit, its answers'.

        Raises:
            RequestError: the key has not so many left.
        """
        if self._tokens is None:
            return
        if n > self._tokens:
            raise RequestError(
                f"this request may take {n} tokens, and this key has {self._tokens} tokens a minute; "
                "shorten the messages, or lower max_tokens or n",
                None,
                status=429,
                code="rate_limit_exceeded",
            )
        if not self._storage.acquire_sliding_window_entry(self._id, self._tokens, _MINUTE_S, n):
            raise _exceeded(f"{self._tokens} tokens", self._wait_for(n, self._tokens))

    def headers(self) -> dict[str, str]:
        """OpenAI's headers on the limits that the key has."""
        given: dict[str, str] = {}
        if self._requests is not None:
            stats = self._moving.get_window_stats(self._requests, self._id)
            given |= _headers(
                "requests", self._requests.amount, left=stats.remaining, reset_s=stats.reset_time - time.time()
            )
        if self._tokens is not None:
            last, last_s, now, now_s = self._storage.get_sliding_window(self._id, _MINUTE_S)
            left = self._tokens - math.floor(last * last_s / _MINUTE_S + now)
            given |= _headers("tokens", self._tokens, left=left, reset_s=now_s if now else last_s)
        return given

    def _wait_for(self, n: int, most: int) -> float:
        """Seconds until ``n`` of ``most`` tokens are free, if nobody takes any."""
        last, last_s, now, now_s = self._storage.get_sliding_window(self._id, _MINUTE_S)
        if last and now + n <= most:
            return last_s - (most - now - n) * _MINUTE_S / last
        # Only when this minute is the last one: it ends a minute before its weight does.
        return now_s - (most - n) * _MINUTE_S / max(now, 1)


def _exceeded(limit: str, wait_s: float) -> RequestError:
    wait = min(2 * _MINUTE_S, max(1, math.ceil(wait_s)))
    return RequestError(
        f"this key's limit of {limit} a minute is reached; ask again in {wait} s",
        None,
        status=429,
        code="rate_limit_exceeded",
        retry_after_s=wait,
    )


def _headers(kind: str, most: int, *, left: int, reset_s: float) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{kind}": str(most),
        f"x-ratelimit-remaining-{kind}": str(max(0, left)),
        f"x-ratelimit-reset-{kind}": f"{max(0.0, reset_s):.3f}s",
    }
