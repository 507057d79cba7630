"""Where an LLM's grades are kept: in an SQLite file of the state folder, or in the database that machines share."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import sqlalchemy as sql

from ontopic.errors import UserError
from ontopic.state.database import database_name, insert_into, open_state

OF_QUESTION, OF_CONTENT = 8, 32  # bytes of a key; older releases had none of the question
METADATA = sql.MetaData()
_GRADES = sql.Table(
    "grades",
    METADATA,
    sql.Column("key", sql.LargeBinary, primary_key=True),
    sql.Column("grade", sql.String, nullable=False),
)
Row = tuple[bytes, str]


class KeptGrades(Protocol):
    """Grades by their keys; several threads and processes may use the same ones at once.

    Its methods raise a ``UserError`` where it cannot be read or written.
    """

    def read(self, keys: Sequence[bytes]) -> str | None:
        """The grade that is kept under one of these keys, if any."""

    def write(self, rows: Sequence[Row]) -> None:
        """Keep grades."""

    def erase(self, questions: Iterable[str]) -> int:
        """Delete all grades of these questions, and those of older releases, which do not say of which they are, for
        good; returns how many went."""


def question_key(question: str) -> bytes:
    """What the keys of all grades of a question begin with."""
    return hashlib.sha256(question.encode("utf-8", "surrogatepass")).digest()[:OF_QUESTION]


def _between(question: str) -> tuple[bytes, bytes]:
    """The first key of a question, and one after its last."""
    key = question_key(question)
    return key, key + b"\xff" * (OF_CONTENT + 1)


class InFile:
    """See ``KeptGrades``; in WAL mode.

    Args:
        path: made where missing; where ``None``, a temporary file that is gone with this object.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._one = path, threading.Lock()
        # Not by ``Tables``: reading a grade would take 25 µs, not 11, and a private database has no path.
        with self._mistakes():
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
            # An empty name is a private database that SQLite keeps in memory while small and on disk when large.
            self._connection = sqlite3.connect(path or "", timeout=30, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS grades (key BLOB PRIMARY KEY, grade TEXT NOT NULL) WITHOUT ROWID"
            )
            self._connection.execute("SELECT key, grade FROM grades LIMIT 1").fetchone()

    def read(self, keys: Sequence[bytes]) -> str | None:
        """See ``KeptGrades``."""
        with self._mistakes(), self._one:
            row = self._connection.execute("SELECT grade FROM grades WHERE key IN (?, ?)", tuple(keys)).fetchone()
        return None if row is None else row[0]

    def write(self, rows: Sequence[Row]) -> None:
        """See ``KeptGrades``."""
        with self._mistakes(), self._one:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany("INSERT OR REPLACE INTO grades VALUES (?, ?)", rows)
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def erase(self, questions: Iterable[str]) -> int:
        """See ``KeptGrades``; nothing of them is left in the file or in the log beside it."""
        with self._mistakes(), self._one:
            self._connection.execute("PRAGMA secure_delete=ON")
            gone = self._connection.execute("DELETE FROM grades WHERE length(key) = ?", (OF_CONTENT,)).rowcount
            one = "DELETE FROM grades WHERE key >= ? AND key < ?"
            for question in questions:
                gone += self._connection.execute(one, _between(question)).rowcount
            if gone:
                self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return gone

    @contextmanager
    def _mistakes(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise UserError(
                f"{self._path}: the verdict cache cannot be used ({error}); see that it may be written and the disk is "
                "not full, or remove the file, and its verdicts are asked for again"
            ) from error


class Shared:
    """See ``KeptGrades``; what one machine has paid for the others read.

    Args:
        url: of the shared state.
    """

    def __init__(self, url: str) -> None:
        self._name, self._engine = database_name(url), open_state(url)

    def read(self, keys: Sequence[bytes]) -> str | None:
        """See ``KeptGrades``."""
        with self._mistakes(), self._engine.connect() as connection:
            return connection.scalar(sql.select(_GRADES.c.grade).where(_GRADES.c.key.in_(keys)).limit(1))

    def write(self, rows: Sequence[Row]) -> None:
        """See ``KeptGrades``."""
        with self._mistakes(), self._engine.begin() as connection:
            new = insert_into(connection, _GRADES)
            kept = new.on_conflict_do_update(index_elements=["key"], set_={"grade": new.excluded.grade})
            # In one order, so that two machines that write the same ones do not wait for each other.
            connection.execute(kept, [{"key": key, "grade": grade} for key, grade in sorted(rows)])

    def erase(self, questions: Iterable[str]) -> int:
        """See ``KeptGrades``."""
        with self._mistakes(), self._engine.begin() as connection:
            older = sql.func.length(_GRADES.c.key) == OF_CONTENT
            gone = connection.execute(sql.delete(_GRADES).where(older)).rowcount
            for first, end in map(_between, questions):
                of_question = sql.and_(_GRADES.c.key >= first, _GRADES.c.key < end)
                gone += connection.execute(sql.delete(_GRADES).where(of_question)).rowcount
        with self._mistakes(), self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if gone:
                connection.exec_driver_sql("VACUUM (FULL) grades")
        return gone

    @contextmanager
    def _mistakes(self) -> Iterator[None]:
        try:
            yield
        except sql.exc.DBAPIError as error:
            raise UserError(
                f"{self._name}: the verdict cache cannot be used ({str(error.orig).partition(chr(10))[0]}); see to the "
                "server"
            ) from error
