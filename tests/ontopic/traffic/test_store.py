from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sql
from loopback import ROOT
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError

from ontopic.errors import UserError
from ontopic.records import Record
from ontopic.state.database import database_name
from ontopic.traffic.schema import TRAFFIC
from ontopic.traffic.store import TrafficStore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a folder" / "traffic #1?.db"


def test_a_record_comes_back_as_it_was(store_at: Path | str) -> None:
    record = Record(
        question="what's my balance? €",
        answer="x\ny",
        in_scope=True,
        id="id1",
        model_version="v3",
        asked_at=NOON,
        latency_s=1.25,
        prompt_tokens=40,
        completion_tokens=7,
        finished=False,
    )
    with TrafficStore(store_at) as store:
        assert store.add(record) == "id1"
    with TrafficStore(str(store_at)) as store:
        assert store.records() == [record]


def test_ids_and_times_are_given_where_missing(store_at: Path | str) -> None:
    with TrafficStore(store_at) as store:
        first, second = store.add(Record(question="q", answer="a")), store.add(Record(question="q", answer="a"))
        record = store.records([first])[0]
    assert first != second
    assert len(first) == 32
    assert record.asked_at is not None
    assert abs(datetime.now(UTC) - record.asked_at) < timedelta(minutes=1)
    assert record.in_scope is None


@pytest.mark.parametrize(
    "asked_at", [NOON, NOON.replace(tzinfo=None), NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))]
)
def test_times_are_kept_in_utc(store_at: Path | str, asked_at: datetime) -> None:
    with TrafficStore(store_at) as store:
        store.add(Record(question="q", answer="a", asked_at=asked_at))
        (record,) = store.records()
    assert record.asked_at == NOON
    assert record.asked_at.utcoffset() == timedelta(0)


def test_records_are_ordered_and_chosen(store_at: Path | str) -> None:
    with TrafficStore(store_at) as store:
        for hour in (3, 1, 2):
            asked_at = NOON + timedelta(hours=hour)
            store.add(Record(question="q", answer="a", id=str(hour), model_version=f"v{hour % 2}", asked_at=asked_at))
        assert [record.id for record in store.records()] == ["1", "2", "3"]
        assert [record.id for record in store.records(model_version="v1")] == ["1", "3"]
        assert [record.id for record in store.records(["3", "2", "3", "none"])] == ["2", "3"]
        assert [record.id for record in store.records(["3", "2"], "v1")] == ["3"]
        assert store.records([]) == []
        assert store.records(["' OR 1=1 --"], "' OR 1=1 --") == []
        assert store.count() == 3


def test_many_ids_work_and_keep_the_order(store_at: Path | str) -> None:
    with TrafficStore(store_at) as store:
        ids = [store.add(Record(question="q", answer="a", asked_at=NOON - timedelta(seconds=i))) for i in range(1100)]
        assert [record.id for record in store.records(ids)] == ids[::-1]


def test_text_that_looks_like_sql_or_holds_nul_is_kept(path: Path) -> None:
    question = "'); DROP TABLE traffic; --\0 and after"
    with TrafficStore(path) as store:
        store.add(Record(question=question, answer="a"))
        assert [record.question for record in store.records()] == [question]


def test_what_cannot_be_stored_is_raised_and_leaves_nothing(store_at: Path | str) -> None:
    with TrafficStore(store_at) as store:
        store.add(Record(question="q", answer="a", id="taken"))
        with pytest.raises(IntegrityError):
            store.add(Record(question="q", answer="a", id="taken"))
        with pytest.raises(UnicodeEncodeError):
            store.add(Record(question="\ud800", answer="a"))
        assert store.count() == 1


def test_each_commit_is_synced(path: Path) -> None:
    with TrafficStore(path) as store, store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_a_record_outlives_kill_9(store_at: Path | str) -> None:
    code = (
        "import os, sys; from ontopic.records import Record; from ontopic.traffic.store import TrafficStore;"
        "TrafficStore(sys.argv[1]).add(Record(question='q', answer='a', id='kept')); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(store_at)], cwd=ROOT, check=False).returncode == -9
    with TrafficStore(store_at) as store:
        assert [record.id for record in store.records()] == ["kept"]


def test_threads_and_processes_write_at_once(store_at: Path | str) -> None:
    code = (
        "import sys; from ontopic.records import Record; from ontopic.traffic.store import TrafficStore;"
        "store = TrafficStore(sys.argv[1]); [store.add(Record(question='q', answer='a')) for _ in range(30)]"
    )
    others = [subprocess.Popen([sys.executable, "-c", code, str(store_at)], cwd=ROOT) for _ in range(3)]
    with TrafficStore(store_at) as store, ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: store.add(Record(question="q", answer="a")), range(60)))
        assert [other.wait(60) for other in others] == [0, 0, 0]
        assert store.count() == 150


def test_what_is_not_a_store_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is not a database, and long enough to be seen as such " * 30)
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


def test_many_are_stored_at_once_and_none_twice(store_at: Path | str) -> None:
    records = [
        Record(question=f"q{i}", answer="a", id=f"{i:04}", asked_at=NOON + timedelta(seconds=i)) for i in range(2500)
    ]
    with TrafficStore(store_at) as store:
        assert store.add_many([]) == 0
        assert store.add_many(records[:1200]) == 1200
        assert store.add_many(iter(records)) == 1300
        assert store.records() == records
        without_id = [
            Record(question="hello", answer="hi", asked_at=NOON),
            Record(question="hello", answer="hi"),
            Record(question="hello", answer="ho"),
        ]
        assert store.add_many(without_id) == 3
        assert store.add_many(without_id) == 0
        with pytest.raises(UnicodeEncodeError):
            store.add_many([Record(question="fine", answer="a"), Record(question="\ud800", answer="a")])
        assert store.count() == 2503


def test_a_stream_gives_all_in_order_of_time(store_at: Path | str) -> None:
    # Many of one time, so that pages end between them.
    records = [
        Record(question="q", answer="a", id=f"{i:04}", model_version=f"v{i % 2}", asked_at=NOON) for i in range(2400)
    ]
    records += [
        Record(question="q", answer="a", id=f"x{i:04}", asked_at=NOON + timedelta(seconds=i)) for i in range(1, 600)
    ]
    with TrafficStore(store_at) as store:
        assert list(store.stream()) == []
        store.add_many([*records[2400:], *records[:2400]])
        assert list(store.stream()) == records  # those of one time as they were stored
        assert list(store.stream("v1")) == [record for record in records if record.model_version == "v1"]
        assert store.newest(3) == records[-3:]
        assert store.newest(2, "v1") == [records[2397], records[2399]]
        seen = store.stream()
        first = next(seen)
        late = Record(question="late", answer="a", id="late", asked_at=NOON + timedelta(days=1))
        store.add(late)
        assert [first, *seen] == [*records, late]


def test_pages_are_found_by_the_index(path: Path) -> None:
    said: list[tuple[str, tuple]] = []
    with TrafficStore(path, "ontopic-banking") as store:
        store.add_many(Record(question="q", answer="a", id=f"{i:04}", asked_at=NOON) for i in range(1500))
        for engine in (store._engine, store._writing):
            sql.event.listen(engine, "before_cursor_execute", lambda *a: said.append((a[2], a[3])))
        list(store.stream())
        store.prune(older_than=timedelta(days=90), keep=1200)
        searches = [(text, values) for text, values in said if "registered_model = " in text]
        assert len(searches) > 7  # pages of records, false times, the newest, pages that go by age and by count
        with store._engine.connect() as connection:
            plans = [
                " ".join(map(str, connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all()))
                for text, values in searches
            ]
        for plan in plans:
            assert "USING INDEX traffic_by_" in plan or "USING COVERING INDEX traffic_by_" in plan
            assert "TEMP B-TREE" not in plan
        bounds = ("AND asked_at=? AND rowid>?", "AND asked_at>?", "AND asked_at<?")
        assert all(any(bound in plan for plan in plans) for bound in bounds)


def test_the_summary_counts_by_version(store_at: Path | str) -> None:
    with TrafficStore(store_at) as store:
        assert (store.summary().n, store.summary().versions, store.summary().redacted) == (0, [], {})
        for i in range(3):
            store.add(Record(question="q", answer="a", model_version="v2", asked_at=NOON + timedelta(hours=i)))
        store.add(Record(question="q", answer="a", model_version="v1", asked_at=NOON - timedelta(hours=1)))
        summary = store.summary()
    assert summary.n == 4
    assert [(each.model_version, each.n) for each in summary.versions] == [("v1", 1), ("v2", 3)]
    assert (summary.versions[1].first, summary.versions[1].last) == (NOON, NOON + timedelta(hours=2))


def test_a_store_that_can_be_written_is_told_and_not_changed(store_at: Path | str) -> None:
    with TrafficStore(store_at) as store:
        store.add(Record(question="q", answer="a", id="id1", asked_at=NOON))
        before = store.records(), store.last_stored()
        store.check_writable()
        assert (store.records(), store.last_stored()) == before


def test_a_store_that_cannot_be_written_is_told(path: Path) -> None:
    TrafficStore(path).close()
    url = f"sqlite:///file:{str(path).replace('#', '%23').replace('?', '%3f')}?mode=ro&uri=true"
    with TrafficStore(url) as store:
        assert store.records() == []
        with pytest.raises(OperationalError, match="readonly"):
            store.check_writable()
        with pytest.raises(OperationalError, match="readonly"):
            store.add(Record(question="q", answer="a"))


def test_a_store_without_its_table_cannot_be_written(store_at: Path | str) -> None:
    with TrafficStore(store_at) as store:
        with store._engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE traffic RENAME TO hidden")
        with pytest.raises(SQLAlchemyError):
            store.check_writable()


def test_old_and_surplus_records_are_pruned(store_at: Path | str) -> None:
    now = datetime.now(UTC)
    with TrafficStore(store_at) as store:
        store.add_many(
            Record(question="q", answer="a", id=f"{i:04}", asked_at=now - timedelta(hours=i)) for i in range(2500)
        )
        assert store.prune() == 0
        assert store.prune(older_than=timedelta(days=400)) == 0
        assert store.prune(older_than=timedelta(hours=2000.5)) == 499
        assert store.prune(keep=3000) == 0
        assert store.prune(keep=10, older_than=timedelta(hours=1000)) == 1991
        assert [record.id for record in store.records()] == [f"{i:04}" for i in reversed(range(10))]
        assert store.prune(keep=0) == 10
        assert store.count() == 0


def test_records_with_a_false_time_never_stand_for_the_newest(store_at: Path | str) -> None:
    now = datetime.now(UTC)
    false = [now + timedelta(days=2), datetime(2099, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]

    def fill(store: TrafficStore) -> None:
        store.prune(keep=0)
        times = {**{f"real {i}": now - timedelta(hours=i) for i in range(20)}, **{f"false {t:%Y}": t for t in false}}
        store.add_many(Record(question="q", answer="a", id=name, asked_at=time) for name, time in times.items())

    with TrafficStore(store_at) as store:
        fill(store)
        assert store.ahead() == 3
        assert [record.id for record in store.newest(2)] == ["real 1", "real 0"]
        assert store.prune(older_than=timedelta(hours=9.5)) == 10
        assert store.ahead() == 3  # stored now
        with store._engine.begin() as connection:
            connection.execute(sql.update(TRAFFIC).where(TRAFFIC.c.id.like("false%")).values(stored_at=None))
        assert store.prune(keep=5) == 8
        assert [record.id for record in store.records()] == [f"real {i}" for i in (4, 3, 2, 1, 0)]
        fill(store)
        long_ago = now.replace(tzinfo=None) - timedelta(days=100)
        with store._engine.begin() as connection:
            connection.execute(sql.update(TRAFFIC).values(stored_at=long_ago))
        assert store.prune(older_than=timedelta(days=90)) == 3
        assert store.prune(older_than=timedelta(days=90)) == 0
        assert (store.ahead(), store.count()) == (0, 20)


def test_personal_data_is_not_stored_and_its_counts_are(store_at: Path | str) -> None:
    question = "My card 4111 1111 1111 1111 and DE89 3704 0044 0532 0130 00, call +44 20 7946 0958"
    with TrafficStore(store_at) as store:
        store.add(Record(question=question, answer="I wrote to a@b.de and c@d.de", id="1"))
        store.add_many([Record(question="a@b.de?", answer="no", id="2")])
        first, second = store.records(["1"])[0], store.records(["2"])[0]
        assert store.summary().redacted == {"card": 1, "iban": 1, "email": 3, "phone": 1}
        # What is stored again, as by an import of an export, keeps its counts.
        store.prune(keep=0)
        store.add_many([first, second])
        assert store.summary().redacted == {"card": 1, "iban": 1, "email": 3, "phone": 1}
    assert (first.question, first.answer) == (
        "My card [card] and [iban], call [phone]",
        "I wrote to [email] and [email]",
    )
    assert first.redacted == {"card": 1, "iban": 1, "email": 2, "phone": 1}
    assert second.redacted == {"email": 1}


def test_redaction_can_be_left_out(store_at: Path | str) -> None:
    with TrafficStore(store_at, redacted=False) as store:
        store.add(Record(question="a@b.de", answer="a"))
        assert [(record.question, record.redacted) for record in store.records()] == [("a@b.de", {})]


def test_a_nul_leaves_the_rest_of_the_text_on_postgresql(postgres_database: str) -> None:
    with TrafficStore(postgres_database) as store:
        store.add(Record(question="'); DROP TABLE traffic; --\0 and after", answer="a"))
        assert [record.question for record in store.records()] == ["'); DROP TABLE traffic; --\ufffd and after"]


def test_an_error_of_the_database_does_not_repeat_the_text(store_at: Path | str) -> None:
    with TrafficStore(store_at) as store:
        store.add(Record(question="q", answer="a", id="taken"))
        with pytest.raises(IntegrityError) as raised:
            store.add(Record(question="my secret", answer="a", id="taken"))
    assert "my secret" not in str(raised.value)


def test_a_missing_driver_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"driver is not installed; run pip install .*\[postgres\]"):
        TrafficStore("postgresql://user:secret@127.0.0.1/name")


def test_a_server_that_is_not_there_is_named_without_the_password(postgres: str) -> None:
    for url in ("postgresql://user:secret@127.0.0.1:1/name", "postgresql://user@127.0.0.1:1/name?password=secret"):
        with pytest.raises(UserError, match=r"postgresql://127\.0\.0\.1:1/name could not be opened") as raised:
            TrafficStore(url)
        assert "secret" not in str(raised.value)
    assert database_name("postgres://u:p@ss@h/d?password=x") == "postgres://h/d"


def test_opening_a_store_logs_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        TrafficStore(path).close()
    assert caplog.records == []


def test_what_only_stores_or_reads_imports_nothing_heavy(path: Path) -> None:
    code = (
        "import sys; from ontopic.records import Record; from ontopic.traffic.store import TrafficStore\n"
        "TrafficStore(sys.argv[1]).close(); print(*{name.partition('.')[0] for name in sys.modules})"
    )
    command = [sys.executable, "-c", code, str(path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)  # makes the tables
    again = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    heavy = {"alembic", "phonenumbers", "stdnum", "numpy", "scipy", "pandas", "pyarrow", "mlflow", "torch", "psycopg"}
    assert "sqlalchemy" in again
    assert heavy & set(again) == set()
