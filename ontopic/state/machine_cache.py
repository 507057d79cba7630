"""What one machine makes once for all state folders: nothing that is not made anew where it is gone."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from ontopic.progress import progress
from ontopic.state.whole_file import whole_folder


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


def made_once(folder: Path, make: Callable[[Path], object], *, whole_by: str, label: str) -> Path:
    """``folder``, made where it is not there yet; of several processes at once one makes it, and the others wait.

    Args:
        make: called with an empty folder, to fill it.
        whole_by: the name of a file in it by which it is known to be there.
        label: of the progress.
    """
    if (folder / whole_by).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not (folder / whole_by).is_file():
            with whole_folder(folder) as part, progress(label, 1, unit="model") as advance:
                make(part)
                advance(1)
    return folder
