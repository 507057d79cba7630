"""How much each API key may use in a minute, of all replicas together where they share their state."""

from __future__ import annotations

import math
import time

from serving import metrics
from serving.errors import RequestError
from serving.keys import Key
from serving.shared_state import SharedState, SharedStateDownError
from serving.use import MINUTE_S, Kind, LocalUse, Taken


class RateLimits:
    """The use of all keys in the last minute.

    While the shared state can't be asked, this process counts by itself, from what it let pass before. What it let pass
    then counts until it is over, so that each replica by itself never lets more pass than a key has.

    Args:
        shared: where replicas count together; ``None`` where this process is alone.
    """

    def __init__(self, shared: SharedState | None = None) -> None:
        self._local, self._shared = LocalUse(), shared
        self._use, self._alone_at = None, -math.inf
        if shared is not None:
            from serving.shared_use import SharedUse  # with SQLAlchemy, which --help need not wait for

            self._use = SharedUse(shared.url)

    def of(self, key: Key) -> Allowance:
        """What ``key`` may still use."""
        return Allowance(self, key)

    async def take(self, kind: Kind, of: str, *, n: int, most: int) -> Taken:
        """Count ``n`` of ``most`` a minute, as ``LocalUse.take`` has it."""
        if self._shared is None or self._use is None:
            return self._local.take(kind, of, n=n, most=most)
        use = self._use
        try:
            taken = await self._shared.ask(lambda: use.take(kind, of, n=n, most=most))
        except SharedStateDownError:
            metrics.counted_alone()
            self._alone_at = time.monotonic()
            return self._local.take(kind, of, n=n, most=most)
        if taken.wait_s is not None:
            return taken
        own = self._local.take(kind, of, n=n, most=most)
        was_alone = time.monotonic() - self._alone_at < 2 * MINUTE_S
        return own if was_alone and own.wait_s is not None else taken


class Allowance:
    """What one key may still use: asked for a request."""

    def __init__(self, limits: RateLimits, key: Key) -> None:
        self._limits, self._key = limits, key
        self._told: dict[Kind, tuple[int, Taken]] = {}

    async def take_request(self) -> None:
        """Count a request.

        Raises:
            RequestError: the key has no request left.
        """
        if (most := self._key.requests_per_minute) is not None:
            await self._take("requests", n=1, most=most)

    async def take_tokens(self, n: int) -> None:
        """Count the tokens that a request may come to use: its prompt's and, up to their limit, its answers'.

        Raises:
            RequestError: the key has not so many left.
        """
        most = self._key.tokens_per_minute
        if most is None:
            return
        if n > most:
            raise RequestError(
                f"this request may take {n} tokens, and this key has {most} tokens a minute; "
                "shorten the messages, or lower max_tokens or n",
                None,
                status=429,
                code="rate_limit_exceeded",
            )
        await self._take("tokens", n=n, most=most)

    def headers(self) -> dict[str, str]:
        """OpenAI's headers on the limits that this request was counted against."""
        given: dict[str, str] = {}
        for kind, (most, taken) in self._told.items():
            given |= {
                f"x-ratelimit-limit-{kind}": str(most),
                f"x-ratelimit-remaining-{kind}": str(taken.left),
                f"x-ratelimit-reset-{kind}": f"{max(0.0, taken.reset_s):.3f}s",
            }
        return given

    async def _take(self, kind: Kind, *, n: int, most: int) -> None:
        taken = await self._limits.take(kind, self._key.sha256, n=n, most=most)
        self._told[kind] = most, taken
        if taken.wait_s is None:
            return
        wait = min(2 * MINUTE_S, max(1, math.ceil(taken.wait_s)))
        raise RequestError(
            f"this key's limit of {most} {kind} a minute is reached; ask again in {wait} s",
            None,
            status=429,
            code="rate_limit_exceeded",
            retry_after_s=wait,
        )
