"""Grades that were paid for, by the content of what was graded: a rerun asks nothing twice, a crash loses little."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ontopic.errors import UserError

_SECONDS_BETWEEN_COMMITS = 0.5
_OF_QUESTION, _OF_CONTENT = 8, 32  # bytes of a key; older releases had none of the question
_READING = 2  # raised where replies are read otherwise, so that what an older release read wrongly is not used


def content_key(judge_id: str, content: dict[str, Any]) -> bytes:
    """The key of one grade: sha256 of the judge's id, of how replies are read and all that it is shown; and before
    that, what all grades of its question begin with."""
    shown = hashlib.sha256(json.dumps([_READING, judge_id, content], sort_keys=True).encode()).digest()
    return _question_key(str(content.get("question", ""))) + shown


def _question_key(question: str) -> bytes:
    return hashlib.sha256(question.encode("utf-8", "surrogatepass")).digest()[:_OF_QUESTION]


class VerdictCache:
    """Grades in an SQLite file (WAL); several threads and processes may use the same file at once.

    A grade is on its way to the disk within half a second of ``put``: a process that is killed loses no more than
    that, a power cut may lose a little more.

    Args:
        path: of the file, which is created where missing; where ``None``, a temporary one that is gone with the cache.

    Raises:
        UserError: the file cannot be opened or written, or is not such a cache. Also raised by ``get``, ``put`` and
            ``flush`` where the file breaks later on.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._unwritten: dict[bytes, str] = {}
        self._buffer, self._database = threading.Lock(), threading.Lock()
        self._timer: threading.Timer | None = None
        self._broken: UserError | None = None
        # Not by ``SQLiteFile``: reading a grade would take 25 µs, not 11, and a private database has no path.
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

    def get(self, key: bytes) -> dict[str, Any] | None:
        """The grade that was put under ``key``, if any."""
        self._check()
        with self._buffer:
            text = self._unwritten.get(key)
        if text is None:
            with self._mistakes(), self._database:
                either = (key, key[-_OF_CONTENT:])
                row = self._connection.execute("SELECT grade FROM grades WHERE key IN (?, ?)", either).fetchone()
            if row is None:
                return None
            text = row[0]
        with self._mistakes():
            grade = json.loads(text)
            if not isinstance(grade, dict):
                raise ValueError("a row holds no grade")
        return grade

    def put(self, key: bytes, grade: dict[str, Any]) -> None:
        """Keep a grade. Never waits for the disk."""
        self._check()
        with self._buffer:
            self._unwritten[key] = json.dumps(grade)
            if self._timer is None:
                self._timer = threading.Timer(_SECONDS_BETWEEN_COMMITS, self._flush_later)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Write what is not written yet."""
        self._check()
        with self._database:
            with self._buffer:
                if self._timer:
                    self._timer.cancel()
                    self._timer = None
                rows = list(self._unwritten.items())
            if not rows:
                return
            with self._mistakes():
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    self._connection.executemany("INSERT OR REPLACE INTO grades VALUES (?, ?)", rows)
                    self._connection.execute("COMMIT")
                finally:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
            with self._buffer:
                for key, _ in rows:
                    del self._unwritten[key]

    def erase(self, questions: Iterable[str]) -> int:
        """Delete all grades of these questions, and those of older releases, which do not say of which they are.

        Nothing of them is left in the file or in the log beside it. Returns how many went.
        """
        with self._mistakes(), self._database:
            self._connection.execute("PRAGMA secure_delete=ON")
            gone = self._connection.execute("DELETE FROM grades WHERE length(key) = ?", (_OF_CONTENT,)).rowcount
            one = "DELETE FROM grades WHERE key >= ? AND key < ?"
            for question in questions:
                key = _question_key(question)
                gone += self._connection.execute(one, (key, key + b"\xff" * (_OF_CONTENT + 1))).rowcount
            if gone:
                self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return gone

    def _flush_later(self) -> None:
        try:
            self.flush()
        except UserError as error:  # nobody would see it on this thread
            self._broken = error

    def _check(self) -> None:
        if self._broken:
            raise self._broken

    @contextmanager
    def _mistakes(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, ValueError) as error:
            raise UserError(
                f"{self._path}: the verdict cache cannot be used ({error}); see that it may be written and the disk is "
                "not full, or remove the file, and its verdicts are asked for again"
            ) from error
