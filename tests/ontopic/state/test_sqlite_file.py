"""How an SQLite file is opened: who waits for whom, who may read it, what a replaced one does; times in it."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql
from sqlalchemy.exc import OperationalError

from ontopic.errors import UserError
from ontopic.state.sqlite_file import naive_utc
from ontopic.state.tables import Tables

METADATA = sql.MetaData()
NUMBERS = sql.Table("numbers", METADATA, sql.Column("n", sql.Integer, index=True))


class Numbers(Tables):
    def __init__(self, path: Path, *, immediate: bool = False, timeout_s: float = 30, pooled: bool = True) -> None:
        super().__init__(path, METADATA, what="the numbers", immediate=immediate, timeout_s=timeout_s, pooled=pooled)

    def add(self, n: int) -> None:
        with self._engine.begin() as connection:
            connection.execute(sql.insert(NUMBERS).values(n=n))

    def all(self) -> list[int]:
        with self._engine.connect() as connection:
            return list(connection.scalars(sql.select(NUMBERS.c.n).order_by(NUMBERS.c.n)))

    def add_the_next(self) -> None:
        """Read, then write what follows from it."""
        with self._engine.begin() as connection:
            highest = connection.scalar(sql.select(sql.func.max(NUMBERS.c.n))) or 0
            time.sleep(0.01)
            connection.execute(sql.insert(NUMBERS).values(n=highest + 1))


def test_a_file_is_made_with_its_folder_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "n.db"
    with Numbers(path) as numbers:
        numbers.add(1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Numbers(path) as numbers:
        assert numbers.all() == [1]


def test_transactions_that_read_first_do_not_meet(tmp_path: Path) -> None:
    with Numbers(tmp_path / "n.db", immediate=True) as numbers:
        threads = [threading.Thread(target=numbers.add_the_next) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert numbers.all() == list(range(1, 11))


def test_who_writes_waits_as_long_as_was_said(tmp_path: Path) -> None:
    with Numbers(tmp_path / "n.db", timeout_s=0.2) as numbers, closing(sqlite3.connect(tmp_path / "n.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        with pytest.raises(OperationalError, match="locked"):
            numbers.add(1)
        assert 0.15 < time.monotonic() - start < 5
        assert numbers.all() == []  # who reads does not wait


@pytest.mark.parametrize(("pooled", "seen"), [(False, [7]), (True, [1])])
def test_a_replaced_file_is_seen_by_a_connection_a_call(tmp_path: Path, pooled: bool, seen: list[int]) -> None:
    path = tmp_path / "n.db"
    with Numbers(path, pooled=pooled) as numbers:
        numbers.add(1)
        with Numbers(tmp_path / "other.db", pooled=False) as other:
            other.add(7)
        (tmp_path / "other.db").replace(path)
        if not pooled:
            assert sorted(tmp_path.iterdir()) == [path]  # nothing of the old one beside it
        assert numbers.all() == seen


def test_what_cannot_be_read_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is not a database, and long enough " * 30)
    (tmp_path / "folder.db").mkdir()
    for wrong in (tmp_path / "text.db", tmp_path / "folder.db", tmp_path / "text.db" / "below.db"):
        with pytest.raises(UserError, match=r"\.db: the numbers cannot be read \("):
            Numbers(wrong)


@pytest.fixture
def only_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a folder on a read-only disk, which root too may not write."""
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)


@pytest.mark.parametrize("immediate", [False, True])
@pytest.mark.parametrize("name", ["n.db", "what? 50% ä#.db"])
def test_where_nothing_may_be_written_it_is_read(tmp_path: Path, name: str, immediate: bool, request: Any) -> None:
    with Numbers(tmp_path / name) as numbers:
        numbers.add(7)
    request.getfixturevalue("only_read")
    before = sorted(tmp_path.iterdir())
    with Numbers(tmp_path / name, immediate=immediate) as numbers:
        assert numbers.all() == [7]
        with pytest.raises(OperationalError, match="readonly") as raised:
            numbers.add(8)
    assert raised.value.__notes__ == [f"in {tmp_path / name}"]
    assert sorted(tmp_path.iterdir()) == before


def test_where_nothing_may_be_written_a_missing_file_is_empty(tmp_path: Path, only_read: None) -> None:
    with Numbers(tmp_path / "n.db") as numbers:
        assert numbers.all() == []
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_is_writing_is_read_too(tmp_path: Path, request: Any) -> None:
    with Numbers(tmp_path / "n.db") as writing:
        writing.add(1)
        request.getfixturevalue("only_read")
        with Numbers(tmp_path / "n.db") as reading:
            assert reading.all() == [1]  # from the log, which is not in the file yet


NOON = datetime(2026, 3, 1, 12)


@pytest.mark.parametrize(
    "at",
    [NOON, NOON.replace(tzinfo=UTC), NOON.replace(hour=17, minute=30, tzinfo=timezone(timedelta(hours=5, minutes=30)))],
)
def test_a_time_is_kept_in_utc_without_a_zone(at: datetime) -> None:
    assert naive_utc(at) == NOON


def test_the_one_way_to_make_a_time_for_a_column_is_used_everywhere() -> None:
    root = Path(__file__).parents[3]
    says: Callable[[str], bool] = lambda text: ".astimezone(UTC).replace(tzinfo=None)" in text  # noqa: E731
    found = [path.name for path in (root / "ontopic").rglob("*.py") if says(path.read_text(encoding="utf-8"))]
    assert found == ["sqlite_file.py"]
