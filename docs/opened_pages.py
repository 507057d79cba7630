"""What ``ui`` opens of a state folder, for those who look at it with a program."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_READY_S = 120


@contextlib.contextmanager
def opened(state: Path, wanted: Sequence[str]) -> Iterator[dict[str, str]]:
    """What `python run.py ui` opens, while it runs.

    Args:
        wanted: how the lines begin whose links are waited for, for two minutes at most.

    Yields:
        URLs by the text before them.
    """
    command = [sys.executable, str(ROOT / "run.py"), "ui", "--state", str(state)]
    own = os.environ | {"COLUMNS": "500", "NO_COLOR": "1"}
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said"
        with said.open("w") as file, subprocess.Popen(command, stdout=file, env=own) as process:
            deadline = time.monotonic() + _READY_S
            try:
                while not _all_there(_links(said), wanted) and time.monotonic() < deadline and process.poll() is None:
                    time.sleep(0.2)
                yield _links(said)
            finally:
                process.terminate()


def _links(said: Path) -> dict[str, str]:
    lines = [line.strip().partition(": http") for line in said.read_text(encoding="utf-8").splitlines()]
    return {what: f"http{url}" for what, separator, url in lines if separator}


def _all_there(links: dict[str, str], wanted: Sequence[str]) -> bool:
    return all(any(what.startswith(begins) for what in links) for begins in wanted)
