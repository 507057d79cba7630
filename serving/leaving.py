"""How a replica leaves: it says so at ``/readyz`` first, so that a balancer sends it nothing more, and then stops."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Mapping
from types import FrameType

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("bentoml.ontopic")

LEAVING_S = 5.0
"""For so long after SIGTERM requests are still taken: a balancer has seen by then that the replica is not ready.

BentoML's supervisor holds the port until the last answer is out. Who comes while nobody listens there waits in vain.
"""


class Leaving:
    """A middleware that puts the server's stop at SIGTERM off, where replicas share their keys."""

    def __init__(self, app: ASGIApp, environment: Mapping[str, str] = os.environ) -> None:
        self._app = app
        self._is_replica = "://" in environment.get("ONTOPIC_KEYS", "")
        self._leaves = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" and self._is_replica:
            await self._app(scope, receive, self._once_started(send))
        elif not self._leaves or scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == "/readyz":
            await PlainTextResponse("this replica is stopping\n", 503)(scope, receive, send)
        else:
            await self._app(scope, receive, _closing(send))

    def _once_started(self, send: Send) -> Send:
        async def sent(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._put_off()
            await send(message)

        return sent

    def _put_off(self) -> None:
        """Called once the server has set its own handler."""
        loop, stop = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)
        if not callable(stop):
            return

        def leave(number: int, frame: FrameType | None) -> None:
            if not self._leaves:  # the supervisor may ask, and the launcher's end too
                self._leaves = True
                loop.call_soon_threadsafe(self._stop_later, lambda: stop(number, frame))

        signal.signal(signal.SIGTERM, leave)

    def _stop_later(self, stop: Callable[[], object]) -> None:
        logger.info("this replica leaves: it takes requests for %.0f s more", LEAVING_S)
        asyncio.get_running_loop().call_later(LEAVING_S, stop)


def _closing(send: Send) -> Send:
    """Answers as the last of their connections, so that none is left on which a request could come too late."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["connection"] = "close"
        await send(message)

    return sent
