from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from ontopic.errors import UserError
from ontopic.records import Record
from ontopic.traffic import TrafficStore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a folder" / "traffic #1?.db"


def test_a_record_comes_back_as_it_was(path: Path) -> None:
    record = Record("what's my balance? €", "x\ny", True, "id1", "v3", NOON, 1.25, 40, 7, False)
    with TrafficStore(path) as store:
        assert store.add(record) == "id1"
    assert path.is_file()
    with TrafficStore(str(path)) as store:
        assert store.records() == [record]


def test_ids_and_times_are_given_where_missing(path: Path) -> None:
    with TrafficStore(path) as store:
        first, second = store.add(Record("q", "a")), store.add(Record("q", "a"))
        record = store.records([first])[0]
    assert first != second
    assert len(first) == 32
    assert record.asked_at is not None
    assert abs(datetime.now(UTC) - record.asked_at) < timedelta(minutes=1)
    assert record.in_scope is None


@pytest.mark.parametrize(
    "asked_at", [NOON, NOON.replace(tzinfo=None), NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))]
)
def test_times_are_kept_in_utc(path: Path, asked_at: datetime) -> None:
    with TrafficStore(path) as store:
        store.add(Record("q", "a", asked_at=asked_at))
        (record,) = store.records()
    assert record.asked_at == NOON
    assert record.asked_at.utcoffset() == timedelta(0)


def test_records_are_ordered_and_chosen(path: Path) -> None:
    with TrafficStore(path) as store:
        for hour in (3, 1, 2):
            asked_at = NOON + timedelta(hours=hour)
            store.add(Record("q", "a", id=str(hour), model_version=f"v{hour % 2}", asked_at=asked_at))
        assert [record.id for record in store.records()] == ["1", "2", "3"]
        assert [record.id for record in store.records(model_version="v1")] == ["1", "3"]
        assert [record.id for record in store.records(["3", "2", "3", "none"])] == ["2", "3"]
        assert [record.id for record in store.records(["3", "2"], "v1")] == ["3"]
        assert store.records([]) == []
        assert store.records(["' OR 1=1 --"], "' OR 1=1 --") == []
        assert store.count() == 3


def test_many_ids_work_and_keep_the_order(path: Path) -> None:
    with TrafficStore(path) as store:
        ids = [store.add(Record("q", "a", asked_at=NOON - timedelta(seconds=i))) for i in range(1100)]
        assert [record.id for record in store.records(ids)] == ids[::-1]


def test_text_that_looks_like_sql_or_holds_nul_is_kept(path: Path) -> None:
    question = "'); DROP TABLE traffic; --\0 and after"
    with TrafficStore(path) as store:
        store.add(Record(question, "a"))
        assert [record.question for record in store.records()] == [question]


def test_what_cannot_be_stored_is_raised_and_leaves_nothing(path: Path) -> None:
    with TrafficStore(path) as store:
        store.add(Record("q", "a", id="taken"))
        with pytest.raises(IntegrityError):
            store.add(Record("q", "a", id="taken"))
        with pytest.raises(UnicodeEncodeError):
            store.add(Record("\ud800", "a"))
        assert store.count() == 1


def test_each_commit_is_synced(path: Path) -> None:
    with TrafficStore(path) as store, store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_a_record_outlives_kill_9(path: Path) -> None:
    code = (
        "import os, sys; from ontopic.records import Record; from ontopic.traffic import TrafficStore;"
        "TrafficStore(sys.argv[1]).add(Record('q', 'a', id='kept')); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False).returncode == -9
    with TrafficStore(path) as store:
        assert [record.id for record in store.records()] == ["kept"]


def test_threads_and_processes_write_at_once(path: Path) -> None:
    code = (
        "import sys; from ontopic.records import Record; from ontopic.traffic import TrafficStore;"
        "store = TrafficStore(sys.argv[1]); [store.add(Record('q', 'a')) for _ in range(30)]"
    )
    others = [subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT) for _ in range(3)]
    with TrafficStore(path) as store, ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: store.add(Record("q", "a")), range(60)))
        assert [other.wait(60) for other in others] == [0, 0, 0]
        assert store.count() == 150


def test_what_is_no_store_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database, and long enough to be none " * 30)
    (tmp_path / "folder.db").mkdir()
    with sqlite3.connect(tmp_path / "other.db"):
        pass
    for wrong in (tmp_path / "text.db", tmp_path / "folder.db", tmp_path / "text.db" / "below.db"):
        with pytest.raises(UserError, match=r"\.db could not be opened"):
            TrafficStore(wrong)
    with pytest.raises(UserError) as raised:
        TrafficStore("nosuchdatabase://user:secret@host/name")
    assert "secret" not in str(raised.value)
    TrafficStore(tmp_path / "other.db").close()
