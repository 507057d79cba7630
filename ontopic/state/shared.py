"""Lines and files that machines share, in a PostgreSQL database: what ``lines`` and ``files`` are in a state folder."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sql
from filelock import Timeout
from sqlalchemy.dialects.postgresql import insert

from ontopic.errors import UserError
from ontopic.state.database import database_name, open_state
from ontopic.state.lead import check_leads

METADATA = sql.MetaData()
LINES = sql.Table(
    "lines",
    METADATA,
    sql.Column("name", sql.String, primary_key=True),  # the path in a state folder
    sql.Column("number", sql.BigInteger, primary_key=True),  # so no two follow the same one
    sql.Column("content", sql.LargeBinary, nullable=False),  # without a newline
)
FILES = sql.Table(
    "files",
    METADATA,
    sql.Column("name", sql.String, primary_key=True),
    sql.Column("sha256", sql.String(64), nullable=False),
    sql.Column("size", sql.BigInteger, nullable=False),  # bytes
    sql.Column("at", sql.DateTime, nullable=False),  # naive, in UTC
)
PARTS = sql.Table(
    "parts",  # of files
    METADATA,
    sql.Column("name", sql.String, primary_key=True),
    sql.Column("number", sql.Integer, primary_key=True),
    sql.Column("content", sql.LargeBinary, nullable=False),  # packed by zlib
)
_LOOKS_S = 0.2  # how often who waits for a lock for some time looks
_PART = 4 << 20  # bytes, before they are packed
_database = functools.cache(open_state)  # which asks each time whether the tables are of this release


class SharedLines:
    """``Lines`` in the database at a URL.

    Args:
        name: the path of their file in a state folder.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url, self._name = url, name

    def __str__(self) -> str:
        return f"{database_name(self._url)}/{self._name}"

    def read(self) -> bytes:
        """See ``Lines.read``."""
        with _database(self._url).connect() as connection:
            return b"".join(line + b"\n" for _, line in self._rows(connection))

    def append(self, make: Callable[[int, bytes], bytes]) -> None:
        """See ``Lines.append``.

        Raises:
            LeadLostError: this process worked on a registered model, and another one does now.
        """
        with _database(self._url).begin() as connection:
            check_leads(connection, self._url)
            self._hold(connection)
            newest = sql.select(LINES.c.number, LINES.c.content).where(LINES.c.name == self._name)
            last = connection.execute(newest.order_by(LINES.c.number.desc()).limit(1)).first()
            number, before = (int(last.number), bytes(last.content)) if last else (0, b"")
            row = {"name": self._name, "number": number + 1, "content": make(number, before)}
            connection.execute(sql.insert(LINES), row)

    def rewrite(self, change: Callable[[bytes], bytes]) -> None:
        """See ``Lines.rewrite``."""
        with _database(self._url).begin() as connection:
            self._hold(connection)
            before = b"".join(line + b"\n" for _, line in self._rows(connection))
            if not before or (after := change(before)) == before:
                return
            connection.execute(sql.delete(LINES).where(LINES.c.name == self._name))
            put_lines(connection, self._name, content=after)

    @contextmanager
    def lock(self, what: str, *, timeout_s: float = -1) -> Iterator[None]:
        """See ``Lines.lock``."""
        key, until = _key(f"{self._name}.{what}"), time.monotonic() + timeout_s
        # Of a connection of its own, which no pool takes back: its end frees the lock.
        connection = _database(self._url).connect().execution_options(isolation_level="AUTOCOMMIT")
        connection.detach()
        with connection:
            if timeout_s < 0:
                connection.execute(sql.select(sql.func.pg_advisory_lock(key)))
            while timeout_s >= 0 and not connection.scalar(sql.select(sql.func.pg_try_advisory_lock(key))):
                if time.monotonic() > until:
                    raise Timeout(f"{self}.{what}")
                time.sleep(_LOOKS_S)
            yield

    def _hold(self, connection: sql.Connection) -> None:
        connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_key(self._name))))

    def _rows(self, connection: sql.Connection) -> list[tuple[int, bytes]]:
        query = sql.select(LINES.c.number, LINES.c.content).where(LINES.c.name == self._name)
        return [(int(number), bytes(line)) for number, line in connection.execute(query.order_by(LINES.c.number))]


def shared_lines(url: str, folder: str) -> list[str]:
    """The names of the lines in a folder."""
    names = sql.select(LINES.c.name).where(LINES.c.name.startswith(f"{folder}/", autoescape=True)).distinct()
    with _database(url).connect() as connection:
        return sorted(connection.scalars(names))


class SharedFiles:
    """``Files`` in the database at a URL.

    Args:
        root: the state folder that the paths are in.
    """

    def __init__(self, url: str, root: Path) -> None:
        self._url, self._root = url, root

    def read(self, path: Path) -> bytes:
        """See ``Files.read``.

        Raises:
            UserError: it was changed after it was stored.
        """
        whole = sql.join(FILES, PARTS, FILES.c.name == PARTS.c.name, isouter=True)  # an empty file has no part
        query = sql.select(FILES.c.sha256, PARTS.c.content).select_from(whole).where(FILES.c.name == self._name(path))
        with _database(self._url).connect() as connection:
            rows = connection.execute(query.order_by(PARTS.c.number)).all()
        if not rows:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.where(path))
        content = b"".join(zlib.decompress(row.content) for row in rows if row.content is not None)
        if hashlib.sha256(content).hexdigest() != rows[0].sha256:
            raise UserError(
                f"{self.where(path)}: was changed after it was stored, as its hash is another; put the database back "
                "from a backup"
            )
        return content

    def write(self, path: Path, content: bytes) -> None:
        """See ``Files.write``."""
        with _database(self._url).begin() as connection:
            put_file(connection, self._name(path), content=content, replaces=True)

    def make(self, path: Path, content: bytes) -> bytes:
        """See ``Files.make``."""
        with _database(self._url).begin() as connection:
            put_file(connection, self._name(path), content=content)
        return self.read(path)

    def write_folder(self, folder: Path, contents: Iterable[tuple[str, bytes]]) -> None:
        """See ``Files.write_folder``."""
        with _database(self._url).begin() as connection:
            for name, content in contents:
                put_file(connection, self._name(folder / name), content=content)

    def delete(self, path: Path) -> None:
        """See ``Files.delete``."""
        with _database(self._url).begin() as connection:
            for table in (PARTS, FILES):
                connection.execute(sql.delete(table).where(table.c.name == self._name(path)))

    def within(self, folder: Path) -> list[Path]:
        """See ``Files.within``."""
        of_folder = FILES.c.name.startswith("" if folder == self._root else f"{self._name(folder)}/", autoescape=True)
        with _database(self._url).connect() as connection:
            return sorted(self._root / name for name in connection.scalars(sql.select(FILES.c.name).where(of_folder)))

    def where(self, path: Path) -> str:
        """See ``Files.where``."""
        return f"{database_name(self._url)}/{self._name(path)}"

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def put_lines(connection: sql.Connection, name: str, *, content: bytes) -> int:
    """Store lines of which none is there yet; returns how many."""
    lines = content.removesuffix(b"\n").split(b"\n") if content else []
    rows = [{"name": name, "number": i, "content": line} for i, line in enumerate(lines, start=1)]
    if rows:
        connection.execute(sql.insert(LINES), rows)
    return len(rows)


def put_file(connection: sql.Connection, name: str, *, content: bytes, replaces: bool = False) -> bool:
    """Store a file; whether it is stored now.

    Args:
        replaces: whether it takes the place of one that is there, which else stays.
    """
    about = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    about |= {"at": datetime.now(UTC).replace(tzinfo=None)}
    new = insert(FILES).values(name=name, **about)
    if replaces:
        new = new.on_conflict_do_update(index_elements=["name"], set_=about)
        connection.execute(new)
        connection.execute(sql.delete(PARTS).where(PARTS.c.name == name))
    elif connection.scalar(new.on_conflict_do_nothing().returning(FILES.c.name)) is None:
        return False
    for number, start in enumerate(range(0, len(content), _PART)):
        part = zlib.compress(content[start : start + _PART])
        connection.execute(sql.insert(PARTS), {"name": name, "number": number, "content": part})
    return True


def _key(name: str) -> int:
    """The number of PostgreSQL's lock on a name."""
    return int.from_bytes(hashlib.sha256(f"ontopic {name}".encode()).digest()[:8], signed=True)
