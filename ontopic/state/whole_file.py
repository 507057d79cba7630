"""Files and folders that appear whole or not at all, however the process that writes them ends."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ontopic.errors import UserError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; at the end what was written there takes its place, and is on the disk.

    After an error ``path`` is as it was, and nothing is left beside it.

    Raises:
        OSError: the file can't be written.
    """
    part = path.with_name(f".{path.stem[:40]}-{uuid.uuid4().hex[:12]}.part")
    try:
        yield part
        _sync(part)
        part.replace(path)
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes ``folder`` at the end, in place of what was there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield part
        if folder.exists():
            shutil.rmtree(folder)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_writable(path: Path) -> None:
    """See before any work that a file can be written at ``path``.

    Raises:
        UserError: it is a folder, or its folder does not exist.
    """
    if path.is_dir() or not path.resolve().parent.is_dir():
        raise UserError(f"{path}: cannot be written; give a file in an existing folder")


def folder_sha256(folder: Path) -> str:
    """sha256 (hex) over the names and contents of all files in ``folder``, in name order."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
