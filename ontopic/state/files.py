"""Whole files by their place in the state folder: there, or in the database that machines share."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from ontopic.state.whole_file import whole_file, whole_folder


class Files(Protocol):
    """Files by the path that each has in the state folder, whether or not it lies there.

    Each appears whole or not at all, and lasts when a call returns.
    """

    def read(self, path: Path) -> bytes:
        """What is in a file.

        Raises:
            FileNotFoundError: there is none.
            OSError, sqlalchemy.exc.SQLAlchemyError: it can't be read.
        """

    def write(self, path: Path, content: bytes) -> None:
        """Make a file, or put it in the place of what was there."""

    def make(self, path: Path, content: bytes) -> bytes:
        """Make a file that only its owner may read, unless there is one; returns what is in it then."""

    def write_folder(self, folder: Path, contents: Iterable[tuple[str, bytes]]) -> None:
        """Make a folder of files, all at once, unless there is one."""

    def delete(self, path: Path) -> None:
        """Have no such file."""

    def within(self, folder: Path) -> list[Path]:
        """The files in a folder and the folders in it, in the order of their paths."""

    def where(self, path: Path) -> str:
        """Where a file is, as it may be shown."""


class DiskFiles:
    """``Files`` that lie in the state folder."""

    def read(self, path: Path) -> bytes:
        """See ``Files.read``."""
        return path.read_bytes()

    def write(self, path: Path, content: bytes) -> None:
        """See ``Files.write``."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            part.write_bytes(content)

    def make(self, path: Path, content: bytes) -> bytes:
        """See ``Files.make``."""
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # another process was first
                os.link(part, path)
            part.unlink()
        return path.read_bytes()

    def write_folder(self, folder: Path, contents: Iterable[tuple[str, bytes]]) -> None:
        """See ``Files.write_folder``."""
        if folder.is_dir():
            return
        with whole_folder(folder) as part:
            for name, content in contents:
                with whole_file(part / name) as file:
                    file.write_bytes(content)

    def delete(self, path: Path) -> None:
        """See ``Files.delete``."""
        path.unlink(missing_ok=True)

    def within(self, folder: Path) -> list[Path]:
        """See ``Files.within``; what a kill has left of a file that was being written is none."""
        found = (path for path in folder.rglob("*") if path.is_file())
        return sorted(path for path in found if not any(p[0] == "." for p in path.relative_to(folder).parts))

    def where(self, path: Path) -> str:
        """See ``Files.where``."""
        return str(path)
