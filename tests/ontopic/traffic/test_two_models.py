"""The traffic of two registered models in one store: each reads, counts and prunes its own."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sql

from ontopic.records import Feedback, Record
from ontopic.traffic.spool import Spool
from ontopic.traffic.store import TrafficStore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
BANKING, TRAVEL = "ontopic-banking", "ontopic-travel"


def fill(store_at: Path | str, registered_model: str, n: int) -> None:
    with TrafficStore(store_at, registered_model) as store:
        for i in range(n):
            text = f"{registered_model} {i}, a@b.de"
            store.add(Record(question=text, answer="a", id=text[:20], model_version="1", asked_at=NOON + i * HOUR))


def test_each_reads_and_counts_its_own(store_at: Path | str) -> None:
    fill(store_at, BANKING, 3)
    fill(store_at, TRAVEL, 5)
    with TrafficStore(store_at, BANKING) as banking, TrafficStore(store_at, TRAVEL) as travel:
        assert (banking.count(), travel.count()) == (3, 5)
        ids = [record.id for record in travel.records()]
        assert ids == [record.id for record in travel.stream()] == [record.id for record in travel.newest(9)]
        assert {record.registered_model for record in travel.stream("1")} == {TRAVEL}
        assert banking.records(ids=ids) == []
        assert [record.id for record in travel.records(ids=ids, model_version="1")] == ids
        assert (banking.newest(1)[0].asked_at, travel.newest(1)[0].asked_at) == (NOON + 2 * HOUR, NOON + 4 * HOUR)
        last = travel.last_stored()
        assert last and (banking.last_stored() or last) < last
        assert [len(page) for page in banking.arrivals(NOON - HOUR)] == [3]
        assert [arrival.id for page in travel.asked_since(NOON + 3 * HOUR) for arrival in page] == ids[3:]
        summary = banking.summary()
        assert [(each.registered_model, each.model_version, each.n) for each in summary.versions] == [(BANKING, "1", 3)]
        assert (summary.redacted, summary.others) == ({"email": 3}, {TRAVEL: 5})
    with TrafficStore(store_at) as everything:
        assert [(each.registered_model, each.n) for each in everything.summary().versions] == [
            (BANKING, 3),
            (TRAVEL, 5),
        ]
        assert everything.summary().others == {}


def test_pruning_one_leaves_the_other_and_does_not_count_it(store_at: Path | str) -> None:
    fill(store_at, BANKING, 3)
    fill(store_at, TRAVEL, 5)
    with TrafficStore(store_at, BANKING) as banking, TrafficStore(store_at, TRAVEL) as travel:
        for store in (banking, travel):
            store.add_feedback(Feedback(record_id=store.records()[0].id, thumb="up", by="web"))
        assert banking.prune(keep=3) == 0  # the newest three are its own
        assert banking.prune(older_than=timedelta(days=1), keep=1) == 3
        assert (banking.count(), travel.count()) == (0, 5)
        assert (len(banking.feedback()), len(travel.feedback())) == (0, 1)


def test_feedback_is_taken_on_any_record_and_shown_with_its_own(store_at: Path | str) -> None:
    fill(store_at, BANKING, 1)
    fill(store_at, TRAVEL, 1)
    with TrafficStore(store_at, BANKING) as banking, TrafficStore(store_at, TRAVEL) as travel:
        (record,) = travel.records()
        assert banking.add_feedback(Feedback(record_id=record.id, thumb="down", by="web"))
        assert banking.feedback() == []
        assert [each.record_id for each in travel.feedback()] == [record.id]


def test_the_same_said_to_two_assistants_is_two_records_and_none_twice(store_at: Path | str) -> None:
    said = [Record(question=f"q{i}", answer="a") for i in range(1100)]
    for model in (BANKING, TRAVEL):
        with TrafficStore(store_at, model) as store:
            assert (store.add_many(said), store.add_many(said), store.count()) == (1100, 0, 1100)


def test_a_record_that_says_whose_it_is_stays_so(store_at: Path | str) -> None:
    with TrafficStore(store_at, BANKING) as store:
        own = Record(question="q", answer="a", id="own")
        store.add_many([own, own.model_copy(update={"id": "other", "registered_model": TRAVEL})])
        store.add(own.model_copy(update={"id": "another", "registered_model": TRAVEL}))
        assert [record.id for record in store.records()] == ["own"]
        assert store.models_of(["own", "other", "none"]) == {"own": BANKING, "other": TRAVEL}


def test_what_names_none_is_adopted_once_and_in_no_way_before(store_at: Path | str) -> None:
    with TrafficStore(store_at) as store:
        store.add_many(Record(question="q", answer="a", id=str(i), asked_at=NOON) for i in range(2300))
    fill(store_at, TRAVEL, 2)
    with TrafficStore(store_at, BANKING) as banking:
        assert (banking.count(), banking.unnamed(), banking.summary().others) == (0, 2300, {"": 2300, TRAVEL: 2})
        assert (banking.adopt(BANKING), banking.unnamed(), banking.adopt(TRAVEL)) == (2300, 0, 0)
        assert (banking.count(), banking.summary().others) == (2300, {TRAVEL: 2})


def test_looking_for_what_names_none_needs_no_scan(tmp_path: Path) -> None:
    with TrafficStore(tmp_path / "traffic.db", BANKING) as store:
        said: list[str] = []
        sql.event.listen(store._engine, "before_cursor_execute", lambda *a: said.append(a[2]))
        assert store.unnamed() == 0
        with store._engine.connect() as connection:
            plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {said[0]}", ("",)).all())
    assert "USING COVERING INDEX" in plan and "(registered_model=?)" in plan


def test_the_spool_keeps_whose_a_record_is(tmp_path: Path) -> None:
    older = '{"question": "q", "answer": "a", "id": "older", "asked_at": "2026-03-01T12:00:00Z", "model_version": "1"}'
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "older.json").write_text(older)  # as an older release leaves it
    with TrafficStore(tmp_path / "traffic.db") as store:
        spool = Spool(tmp_path / "spool", store)
        spool.add(Record(question="q", answer="a", id="new", registered_model=TRAVEL, model_version="1"))
        while spool.waiting():
            time.sleep(0.01)
        spool.close()
        assert store.models_of(["older", "new"]) == {"older": "", "new": TRAVEL}
