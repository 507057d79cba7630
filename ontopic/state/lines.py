"""Lines that are only ever appended to: a file of the state folder, or rows of the database that machines share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

from filelock import FileLock

from ontopic.state.whole_file import whole_file


class Lines(Protocol):
    """Lines of JSON under a name; may be used by several processes at once, and shared ones by several machines.

    ``str`` of it is where they are, as it may be shown.
    """

    def read(self) -> bytes:
        """All of them, each with its newline; empty where there is none. Of a file, a crash may have left a last line
        half-written, without a newline.

        Raises:
            OSError, sqlalchemy.exc.SQLAlchemyError: they can't be read.
        """

    def append(self, make: Callable[[int, bytes], bytes]) -> None:
        """Append a line, which lasts when this returns; nobody appends meanwhile.

        A last line that a crash left half-written goes first.

        Args:
            make: called with how many lines there are and the last of them (empty where there is none); returns the new
                one, without a newline.
        """

    def rewrite(self, change: Callable[[bytes], bytes]) -> None:
        """Put in the place of all lines what ``change`` makes of them; nobody appends meanwhile."""

    def lock(self, what: str, *, timeout_s: float = -1) -> AbstractContextManager[object]:
        """Held by one at a time, for what is decided on these lines; freed when its holder dies.

        Args:
            timeout_s: how long it is waited for, in seconds; for ever where it is negative.

        Raises:
            filelock.Timeout: another one held it for so long.
        """


class FileLines:
    """``Lines`` in a file, made with its first line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def read(self) -> bytes:
        """See ``Lines.read``."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""

    def append(self, make: Callable[[int, bytes], bytes]) -> None:
        """See ``Lines.append``."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock"), self.path.open("a+b") as file:
            line = make(*_end_last_line(file))
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def rewrite(self, change: Callable[[bytes], bytes]) -> None:
        """See ``Lines.rewrite``."""
        if not self.path.is_file():
            return
        with FileLock(f"{self.path}.lock"):
            before = self.path.read_bytes()
            if (after := change(before)) != before:
                with whole_file(self.path) as part:
                    part.write_bytes(after)

    def lock(self, what: str, *, timeout_s: float = -1) -> AbstractContextManager[object]:
        """See ``Lines.lock``."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(f"{self.path}.{what}", timeout=timeout_s)


def as_lines(place: Path | Lines) -> Lines:
    """Lines, or those of a file."""
    return FileLines(place) if isinstance(place, Path) else place


def whole_lines(content: bytes) -> bytes:
    """Lines without what a crash left of a last one; one that only lacks its newline gets it."""
    end = content.rfind(b"\n") + 1
    return content[:end] + (content[end:] + b"\n" if _is_whole(content[end:]) else b"")


def _end_last_line(file: BinaryIO) -> tuple[int, bytes]:
    """Drop what a crash left of a last line; end one that only lacks its newline. Returns how many lines there are, and
    the last."""
    file.seek(0)
    content = file.read()
    whole, newline, tail = content.rpartition(b"\n")
    if tail and _is_whole(tail):
        file.write(b"\n")
        return content.count(b"\n") + 1, tail
    if tail:
        file.truncate(len(content) - len(tail))
    return content.count(b"\n"), whole.rpartition(b"\n")[2] if newline else b""


def _is_whole(line: bytes) -> bool:
    """Whether nothing is cut off: no beginning of an object is one."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
