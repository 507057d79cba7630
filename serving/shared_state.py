"""The database that replicas share, asked so that no user waits for one that is down."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread
from sqlalchemy.exc import SQLAlchemyError

Told = TypeVar("Told")

logger = logging.getLogger("bentoml.ontopic")

_PATIENCE_S = 2.0
_LEFT_ALONE_S = 5.0  # after it failed: so often does somebody wait in vain
_THREADS = 5  # as many as the engine keeps connections; those that hang are none that records are stored on


class SharedStateDownError(Exception):
    """The database could not be asked, or not soon enough."""


class SharedState:
    """Asks the database that replicas share, and after it failed leaves it alone for a while.

    Args:
        url: of the shared state.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._answered_at = self._failed_at = -float("inf")
        self._is_down = False
        self._limiter = anyio.CapacityLimiter(_THREADS)

    async def ask(self, question: Callable[[], Told]) -> Told:
        """What a question to the database gives, on a thread.

        Raises:
            SharedStateDownError: it raised an SQLAlchemyError, took too long, or was not asked.
        """
        began = time.monotonic()
        if self._is_down and began < self._failed_at + _LEFT_ALONE_S:
            raise SharedStateDownError
        try:
            with anyio.fail_after(_PATIENCE_S):
                told = await anyio.to_thread.run_sync(question, abandon_on_cancel=True, limiter=self._limiter)
        except (SQLAlchemyError, TimeoutError) as error:
            if self._answered_at < began:  # else it is up, and has much to do
                self._failed(error)
            raise SharedStateDownError from error
        if self._is_down and began > self._failed_at:
            logger.info("the shared state answers again")
            self._is_down = False
        self._answered_at = time.monotonic()
        return told

    def _failed(self, error: Exception) -> None:
        if not self._is_down:
            why = type(getattr(error, "orig", None) or error).__name__
            logger.warning("the shared state can't be asked (%s); this replica goes on by itself", why)
        self._is_down, self._failed_at = True, time.monotonic()
