"""Files and folders that appear whole or not at all, however the process that writes them ends."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ontopic.errors import UserError

_DEVICES = (Path("/dev"), Path("/dev/fd"))
# Another disk, a file system without links, a file with too many, one of another user's.
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EACCES, errno.ENOSYS, errno.ENOTSUP)
_SPREADSHEETS = (".csv", ".tsv", ".tab", ".xls", ".xlsx", ".xlsm", ".ods", ".slk", ".dif")
_MOST_LINKS = 40  # as many as Linux follows
_ADVICE = {
    errno.ENOSPC: "free the disk, or give another file",
    errno.EISDIR: "give a file in it",
    errno.ENOENT: "give a file in an existing folder",
}


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; at the end what was written there takes its place, and is on the disk.

    A link stays, and what it names is replaced. After an error ``path`` is as it was, and nothing is left beside it.

    Raises:
        OSError: the file can't be written.
    """
    target = path.resolve()
    part = target.with_name(f".{target.stem[:40]}-{uuid.uuid4().hex[:12]}.part")
    try:
        yield part
        if target.is_file():
            shutil.copymode(target, part)  # who may read it stays as it is
        _sync(part)
        part.replace(target)
        _sync(target.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """As ``whole_file``, for a file that a user names: a device or a pipe gets all that was written at the end.

    Raises:
        UserError: the file can't be written.
    """
    with writing(path):
        if is_regular(path):
            with whole_file(path) as part:
                yield part
            return
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / "part"
            yield part
            pour(part, path)


@contextmanager
def lasting_output(path: Path) -> Iterator[Path]:
    """Where a file that a user names lies, behind links, to be written and read in the body; a device or a pipe gets at
    the end what was written to a temporary file instead.

    Raises:
        UserError: the device or pipe can't be written.
    """
    if is_regular(path):
        yield path.resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "part"
        with writing(path):
            pour(Path(folder) / "part", path)


def pour(source: Path, path: Path) -> None:
    """Write a file's content into a device or a pipe.

    Raises:
        OSError: it can't be written.
    """
    # Appended: standard output may be a file that holds something already.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    with source.open("rb") as read, os.fdopen(descriptor, "wb") as write:
        shutil.copyfileobj(read, write)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of what can't be written to a file that a user names which file it is, and why.

    Raises:
        UserError: an ``OSError`` was raised.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); " + _ADVICE.get(error.errno or 0, "give another file")
        ) from error


def is_regular(path: Path) -> bool:
    """Whether a file is there or can be made, and not a device, a pipe or the process's own output."""
    step = path
    for _ in range(_MOST_LINKS):
        if step.absolute().parent in _DEVICES or step.absolute().is_relative_to("/proc"):
            return False
        if not step.is_symlink():
            break
        step = step.parent / step.readlink()
    return path.is_file() or not path.exists()


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
        UserError: it is a folder, its folder does not exist, or it may not be written; or its name is a spreadsheet's,
            which would compute what strangers have written: a comma and "=" begin a cell, whatever stands before them.
    """
    if path.suffix.lower() in _SPREADSHEETS:
        raise UserError(
            f"{path}: a spreadsheet would open it and compute the formulas that strangers may have written; "
            "nothing is written as a table of text: give a name that ends in .jsonl or .json, or in .parquet"
        )
    with writing(path):
        try:
            target = path.resolve()
        except RuntimeError as error:  # a link that leads back to itself
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from error
        if target.is_dir():
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not target.parent.is_dir():
            raise OSError(errno.ENOENT, "its folder does not exist")
        where = target.parent if is_regular(path) else path
        if not os.access(where, os.W_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))


def folder_sha256(folder: Path) -> str:
    """sha256 (hex) over the names and contents of all files in ``folder``, in name order."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def linked(source: Path, target: Path) -> None:
    """Have a file of ours that is never written again under another name too: without a copy, where the disk can."""
    try:
        target.hardlink_to(source.resolve())
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copy2(source, target)


def linked_folder(source: Path, target: Path) -> None:
    """``linked`` for all files in a folder, into one that is there."""
    for path in sorted(source.rglob("*")):
        if path.is_dir():
            (target / path.relative_to(source)).mkdir(exist_ok=True)
        else:
            linked(path, target / path.relative_to(source))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
