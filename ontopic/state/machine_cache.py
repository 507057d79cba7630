"""What one machine makes once for all state folders: nothing that is not made anew where it is gone."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def machine_cache() -> Path:
    """The folder: ``ONTOPIC_CACHE``, else ``ontopic`` in the user's cache, as Hugging Face's tools have theirs.

    Raises:
        RuntimeError: the user has no home.
    """
    if chosen := os.environ.get("ONTOPIC_CACHE"):
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "ontopic"


def is_cached(folder: Path) -> bool:
    """Whether a folder is in it: written once, and by nobody but us."""
    with suppress(RuntimeError):
        return folder.resolve().is_relative_to(machine_cache().resolve())
    return False
