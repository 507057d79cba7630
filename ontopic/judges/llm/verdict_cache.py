"""Grades that were paid for, by the content of what was graded: a rerun asks nothing twice, a crash loses little."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ontopic.errors import UserError
from ontopic.judges.llm.kept_grades import OF_CONTENT, InFile, KeptGrades, Shared, question_key
from ontopic.state.database import database_name

_SECONDS_BETWEEN_COMMITS = 0.5
_READING = 2  # raised where replies are read otherwise, so that what an older release read wrongly is not used


def content_key(judge_id: str, content: dict[str, Any]) -> bytes:
    """The key of one grade: sha256 of the judge's id, of how replies are read and all that it is shown; and before
    that, what all grades of its question begin with."""
    shown = hashlib.sha256(json.dumps([_READING, judge_id, content], sort_keys=True).encode()).digest()
    return question_key(str(content.get("question", ""))) + shown


class VerdictCache:
    """Grades in an SQLite file, or in the database that machines share; several threads and processes may use the same
    ones at once.

    A grade is on its way to the disk within half a second of ``put``: a process that is killed loses no more than
    that, a power cut may lose a little more.

    Args:
        at: path of the file, which is created where missing, or the database's URL; where ``None``, a temporary file
            that is gone with the cache.

    Raises:
        UserError: it cannot be opened or written, or is not such a cache. Also raised by ``get``, ``put`` and
            ``flush`` where it breaks later on.
    """

    def __init__(self, at: Path | str | None = None) -> None:
        self._at, self._unwritten = at, dict[bytes, str]()
        self._buffer, self._writing = threading.Lock(), threading.Lock()
        self._timer: threading.Timer | None = None
        self._broken: UserError | None = None
        self._kept: KeptGrades = Shared(str(at)) if "://" in str(at) else InFile(None if at is None else Path(at))

    def get(self, key: bytes) -> dict[str, Any] | None:
        """The grade that was put under ``key``, if any."""
        self._check()
        with self._buffer:
            text = self._unwritten.get(key)
        if text is None:
            text = self._kept.read((key, key[-OF_CONTENT:]))
        if text is None:
            return None
        try:
            grade = json.loads(text)
        except ValueError:
            grade = None
        if not isinstance(grade, dict):
            raise UserError(
                f"{database_name(self._at or '')}: the verdict cache cannot be used (a row holds no grade); remove it, "
                "and its verdicts are asked for again"
            )
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
        with self._writing:
            with self._buffer:
                if self._timer:
                    self._timer.cancel()
                    self._timer = None
                rows = list(self._unwritten.items())
            if not rows:
                return
            self._kept.write(rows)
            with self._buffer:
                for key, _ in rows:
                    del self._unwritten[key]

    def erase(self, questions: Iterable[str]) -> int:
        """Delete all grades of these questions, and those of older releases, which do not say of which they are.

        Nothing of them is left in the file or in the log beside it. Returns how many went.
        """
        return self._kept.erase(questions)

    def _flush_later(self) -> None:
        try:
            self.flush()
        except UserError as error:  # nobody would see it on this thread
            self._broken = error

    def _check(self) -> None:
        if self._broken:
            raise self._broken
