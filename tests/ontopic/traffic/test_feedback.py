"""What people thought of answers, with the answers that they would have wanted, in both databases and in files."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sql
from alembic import command
from alembic.config import Config
from loopback import ROOT

from ontopic.errors import UserError
from ontopic.records import Feedback, Record
from ontopic.state.erasing import Erasing
from ontopic.traffic.erasure import collect
from ontopic.traffic.files import Imported, export_traffic, import_traffic
from ontopic.traffic.store import TrafficStore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MODEL = "ontopic-banking"


def thought(record_id: str = "r1", at: timedelta = timedelta(0), **said: str) -> Feedback:
    given = {"thumb": "down", "by": "branch", "record_id": record_id, "given_at": NOON + at}
    return Feedback.model_validate(given | said)


def record(record_id: str = "r1", **said: str) -> Record:
    known = {"question": f"What of {record_id}?", "answer": "Ducks.", "model_version": "2", "registered_model": MODEL}
    return Record.model_validate(known | {"id": record_id, "asked_at": NOON} | said)


def test_a_correction_is_kept_without_personal_data_and_the_newest_of_a_key_counts(store_at: Path | str) -> None:
    with TrafficStore(store_at) as store:
        store.add(record())
        assert store.add_feedback(thought(correction="Call +44 20 7946 0958, or a card 4111 1111 1111 1111.\0"))
        (kept,) = store.feedback()
        assert kept.correction.startswith("Call [phone], or a card [card].")
        assert store.add_feedback(thought(at=timedelta(1), thumb="up"))
        assert [(each.thumb, each.correction) for each in store.feedback(["r1"])] == [("up", "")]
        assert store.add_feedback(thought(correction="An older one."))  # such as of a file that is imported
        assert [(each.thumb, each.correction) for each in store.feedback()] == [("up", "")]
        assert store.feedback(["r2"]) == []


def test_a_store_of_0007_is_brought_along_and_its_process_goes_on_writing(store_at: Path | str) -> None:
    url = sql.URL.create("sqlite", database=str(store_at)) if isinstance(store_at, Path) else sql.make_url(store_at)
    if isinstance(store_at, Path):
        store_at.parent.mkdir()
    engine = sql.create_engine(url.set(drivername="sqlite" if isinstance(store_at, Path) else "postgresql+psycopg"))
    config = Config()
    columns = "record_id, by, thumb, comment, given_at"
    insert = f"INSERT INTO feedback ({columns}) VALUES ('r1', '{{}}', 'down', 'no', '2026-03-01')"  # noqa: S608
    with engine.begin() as connection:
        config.attributes |= {"connection": connection, "version_table": "traffic_version"}
        config.set_main_option("script_location", str(ROOT / "ontopic" / "traffic" / "migrations"))
        command.upgrade(config, "0007")
        connection.exec_driver_sql(insert.format("before"))
    with TrafficStore(store_at) as store:
        store.add(record())
        with engine.begin() as connection:
            connection.exec_driver_sql(insert.format("beside"))
        assert [(each.comment, each.correction) for each in store.feedback()] == [("no", "")] * 2
        assert store.add_feedback(thought(by="beside", correction="Yes."))
        assert {each.by: each.correction for each in store.feedback()} == {"before": "", "beside": "Yes."}
    engine.dispose()


@pytest.mark.parametrize("to", ["jsonl", "parquet"])
def test_feedback_leaves_and_comes_back_with_its_records(tmp_path: Path, to: str) -> None:
    said = [
        thought(comment="'); DROP TABLE feedback; --\u2028", correction="=1+1 <script>\n€"),
        thought(by="website", thumb="up", at=timedelta(microseconds=3)),
        thought("r2", correction="Ask [card]."),
    ]
    out = tmp_path / f"out.{to}"
    with TrafficStore(tmp_path / "one.db", MODEL) as store:
        store.add_many([record(), record("r2"), record("r3")])
        assert store.add_feedback(*said, thought("none")) == 3
        kept = store.feedback()
        export_traffic(store, out)
    with TrafficStore(tmp_path / "other.db", MODEL) as other:
        assert import_traffic(out, other) == Imported(3, 0, 0, feedback=3)
        assert other.feedback() == kept
        assert other.add_feedback(newer := thought(at=timedelta(hours=1), thumb="up"))
        assert import_traffic(out, other).stored == 0
        assert newer in other.feedback()  # which the file's older one does not replace
    with TrafficStore(tmp_path / "taken.db", "ontopic-gardening") as taken:
        taken.add(record(registered_model="ontopic-gardening"))
    with TrafficStore(tmp_path / "taken.db", MODEL) as taken:
        assert import_traffic(out, taken).feedback == 1  # and none on the other policy's record of the same id


def test_feedback_in_a_file_is_checked_and_what_others_call_so_is_left_alone(tmp_path: Path) -> None:
    row = {"question": "q?", "answer": "a", "id": "r1"}
    good = {"thumb": "down", "given_at": "2026-03-01T12:00:00+02:00"}
    rows: list[tuple[dict[str, object], str]] = [
        (row | {"feedback": [good | {"thumb": "sideways"}]}, "thumb"),
        (row | {"feedback": [{"thumb": "up"}]}, "given_at"),
        ({"question": "q?", "answer": "a", "feedback": [good]}, "give the record's"),
    ]
    path = tmp_path / "given.jsonl"
    with TrafficStore(tmp_path / "one.db", MODEL) as store:
        for wrong, named in rows:
            path.write_text(json.dumps(wrong))
            with pytest.raises(UserError, match=named):
                import_traffic(path, store)
        for other in ("great", 5, ["great"], {"score": 1}, None, []):
            path.write_text(json.dumps(row | {"feedback": other}))
            assert import_traffic(path, store).feedback == 0
        path.write_text(json.dumps(row | {"feedback": [good]}))
        assert import_traffic(path, store).feedback == 1
        assert store.feedback()[0].given_at == datetime(2026, 3, 1, 10, tzinfo=UTC)


def test_what_was_thought_of_an_erased_answer_is_sought_too(tmp_path: Path) -> None:
    with TrafficStore(tmp_path / "one.db", MODEL) as store, Erasing(tmp_path / "erasing.db") as erasing:
        store.add_many([record(), record("r2")])
        store.add_feedback(thought(comment="that is not at all true", correction="Lock the card in the app at once."))
        collect(store, [["r1"]], erasing=erasing)
        assert erasing.has_text("It said: lock the card in the app at once.")
        assert erasing.has_text("that is not at all true")
        store.erase(["r1"])
        assert store.feedback() == []


def test_thumbs_are_counted_by_the_time_of_their_question(store_at: Path | str) -> None:
    with TrafficStore(store_at, MODEL) as store:
        for hour in range(4):
            version, at = ("2", "1")[hour == 3], NOON + timedelta(hours=hour)
            told = {"asked_at": at.isoformat(), "model_version": version, "conversation": f"c{hour // 2}"}
            store.add(record(f"r{hour}", **told))
            store.add_feedback(thought(f"r{hour}", thumb="up" if hour else "down"))
        counts = store.thumb_counts("2", NOON, until=NOON + timedelta(hours=2))
        assert counts == {"up": 2, "down": 1}
        assert store.thumb_counts("2", NOON + timedelta(minutes=1), until=NOON + timedelta(hours=1)) == {"up": 1}
        assert [(thumb.record_id, thumb.conversation, thumb.up) for thumb in store.thumbs(["r1", "r0", "no"])] == [
            ("r0", "c0", False),
            ("r1", "c0", True),
        ]
