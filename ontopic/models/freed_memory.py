"""Memory that was freed and that the process still holds."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress


def hand_back() -> None:
    """Give freed memory back to the system, where its C library can: after a training glibc holds gigabytes of it.

    Takes up to a second, for which other threads can't allocate, so it has no place in a service.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # malloc_trim is glibc's
        ctypes.CDLL(None).malloc_trim(0)
