"""The end of a service whose launcher is gone: neither BentoML's supervisor nor its worker outlives a ``kill -9``."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping

import psutil

_LOOK_EVERY_S = 0.5
_GRACE_S = 20


def launcher_pid(environment: Mapping[str, str] = os.environ) -> int | None:
    """The process that this service ends with: ``ONTOPIC_LAUNCHER_PID``; ``None`` where it stands by itself."""
    pid = environment.get("ONTOPIC_LAUNCHER_PID")
    return int(pid) if pid else None


def end_with_launcher() -> None:
    """Start a thread that ends this process once its parent or the launcher has. Without a launcher it does nothing.

    Called in BentoML's supervisor, the launcher's child, and in the worker, the supervisor's child: each watches its
    own parent.
    """
    launcher = launcher_pid()
    if launcher is not None:
        threading.Thread(target=_end_after, args=(launcher, os.getppid()), name="launcher", daemon=True).start()


def _end_after(launcher: int, parent: int) -> None:
    while os.getppid() == parent and psutil.pid_exists(launcher):
        time.sleep(_LOOK_EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)
