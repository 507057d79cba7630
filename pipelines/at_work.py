"""Which step a pipeline is at."""

from __future__ import annotations

import sys
from types import FrameType


def step_at_work() -> str:
    """The step that runs in this process, in words; empty where none does. May be called from any thread."""
    for frame in sys._current_frames().values():
        if step := _step(frame):
            return step
    return ""


def _step(frame: FrameType | None) -> str:
    """The outermost function of a module of ``steps`` on a stack, which is the step itself."""
    step = ""
    while frame is not None:
        package, _, module = frame.f_globals.get("__name__", "").partition(".")
        if package == "steps" and module:
            step = frame.f_code.co_name
        frame = frame.f_back
    return step.replace("_", " ").strip()
