"""Files that came along from another machine: each is opened by the path that it has there, which is part of what names
it, such as a policy's hash."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

STATE = "ONTOPIC_STATE"
"""The environment variable with the state folder of a machine that runs steps for another one."""

_copies: dict[str, Path] = {}


def carry(copies: Mapping[str, Path]) -> None:
    """Have this process open copies in place of files that it may not have.

    Args:
        copies: a file's copy on this machine, by its path on the other one.
    """
    _copies.update(copies)


def here(path: Path) -> Path:
    """Where a file is on this machine: its copy where one came along, else where it says."""
    return _copies.get(str(path), path)


def state_folder() -> Path:
    """This machine's, where no command line names one; by default a folder that is gone when the process ends."""
    given = os.environ.get(STATE)
    return Path(given).expanduser().absolute() if given else Path(_passing().name)


@functools.cache
def _passing() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="ontopic-")
