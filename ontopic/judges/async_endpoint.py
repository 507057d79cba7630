"""An endpoint for frameworks that ask one prompt at a time, from event loops of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from ontopic.judges.endpoint import Endpoint, Prompt, Reply, _loop

Result = TypeVar("Result")


class AsyncEndpoint(Endpoint):
    """As ``Endpoint``, with its limits, retries, budget and account; the connections live in one loop, whoever asks."""

    async def ask(self, prompt: Prompt) -> Reply:
        """What comes of one prompt; may be awaited in any event loop.

        Raises:
            UserError: no API key is set.
        """
        client = self._opened()

        async def one() -> Reply:
            async with self._slots:
                return await self._ask(client, prompt)

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(one(), _loop()))

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run what asks, also where the caller runs an event loop already, as in a notebook."""
        running = asyncio.run_coroutine_threadsafe(work, _loop())
        try:
            return running.result()
        except BaseException:  # also Ctrl-C: nothing goes on in the background
            running.cancel()
            raise
