"""The event loop that all endpoints share."""

from __future__ import annotations

import asyncio
import functools
import threading


@functools.cache
def event_loop() -> asyncio.AbstractEventLoop:
    """One event loop for all endpoints, on a thread of its own: it works where the caller runs a loop already, and goes
    on while the caller is busy with the last answer."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="llm-endpoints", daemon=True).start()
    return loop
