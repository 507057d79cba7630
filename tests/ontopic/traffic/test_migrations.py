"""Traffic stores of other releases, and in the database of another tool."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sql
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from loopback import ROOT

from ontopic.errors import UserError
from ontopic.records import Message, Parameters, Record
from ontopic.traffic.schema import REVISIONS
from ontopic.traffic.store import TrafficStore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
# What a process of the release before the last writes.
COLUMNS = (
    *("id", "asked_at", "model_version", "question", "answer", "latency_s", "prompt_tokens", "completion_tokens"),
    *("finished", "registered_model", "messages", "parameters", "conversation"),
)
# The table as OnTopic 0.1 made it.
OLD = """CREATE TABLE traffic (
    id VARCHAR(64) NOT NULL, asked_at {time} NOT NULL, model_version VARCHAR(200) NOT NULL, question TEXT NOT NULL,
    answer TEXT NOT NULL, in_scope BOOLEAN, latency_s FLOAT NOT NULL, prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, finished BOOLEAN NOT NULL, PRIMARY KEY (id))"""


OLD_ROW = "INSERT INTO traffic VALUES ('{id}', '2026-03-01 12:00:{id}', 'v1', 'q{id}', 'a', NULL, 0.5, 3, 4, true)"


def execute(store_at: Path | str, *statements: str) -> None:
    url = sql.URL.create("sqlite", database=str(store_at)) if isinstance(store_at, Path) else sql.make_url(store_at)
    if isinstance(store_at, Path):
        store_at.parent.mkdir(exist_ok=True)
    engine = sql.create_engine(url.set(drivername="sqlite" if isinstance(store_at, Path) else "postgresql+psycopg"))
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def old_store(store_at: Path | str, n: int) -> None:
    time = "DATETIME" if isinstance(store_at, Path) else "TIMESTAMP WITHOUT TIME ZONE"
    execute(store_at, OLD.format(time=time), *(OLD_ROW.format(id=f"{i:02}") for i in range(n)))


def test_a_store_of_the_last_release_is_taken_over_whole(store_at: Path | str) -> None:
    old_store(store_at, 50)
    with TrafficStore(store_at) as store:
        records = store.records()
        assert [record.id for record in records] == [f"{i:02}" for i in range(50)]
        assert records[7] == Record(
            question="q07",
            answer="a",
            in_scope=None,
            id="07",
            model_version="v1",
            asked_at=datetime(2026, 3, 1, 12, second=7, tzinfo=UTC),
            latency_s=0.5,
            prompt_tokens=3,
            completion_tokens=4,
            finished=True,
        )
        store.add(Record(question="mail me at a@b.de", answer="a", id="new"))
        # A process of the last release that still runs goes on writing.
        columns = "id, asked_at, model_version, question, answer, latency_s, prompt_tokens, completion_tokens, finished"
        values = "'o', '2026-03-01', 'v1', 'q', 'a', 0, 1, 1, true"
        execute(store_at, f"INSERT INTO traffic ({columns}) VALUES ({values})")  # noqa: S608
        assert store.summary().redacted == {"email": 1}
    with TrafficStore(store_at) as store:
        assert store.count() == 52


@pytest.mark.parametrize("old", [False, True])
def test_processes_that_open_a_store_at_once_upgrade_it_once(store_at: Path | str, old: bool) -> None:
    if old:
        old_store(store_at, 9)
    code = (
        "import sys; from ontopic.records import Record; from ontopic.traffic.store import TrafficStore;"
        "sys.stdin.read(1);"
        "TrafficStore(sys.argv[1]).add(Record(question='q', answer='a'))"
    )
    process = [sys.executable, "-c", code, str(store_at)]
    others = [subprocess.Popen(process, cwd=ROOT, stdin=subprocess.PIPE) for _ in range(5)]
    for other in others:
        assert other.stdin
        other.stdin.write(b"x")
        other.stdin.close()
    assert [other.wait(60) for other in others] == [0] * 5
    with TrafficStore(store_at) as store:
        assert store.count() == (14 if old else 5)


def test_a_store_of_a_newer_release_is_the_users_to_mend(store_at: Path | str) -> None:
    with TrafficStore(store_at) as store:
        store.add(Record(question="q", answer="a"))
    execute(store_at, "UPDATE traffic_version SET version_num = '9999'")
    with pytest.raises(UserError, match=r"newer release of OnTopic \(revision 9999\); update OnTopic"):
        TrafficStore(store_at)


def test_an_upgrade_that_fails_changes_nothing(store_at: Path | str) -> None:
    old_store(store_at, 3)
    execute(store_at, "CREATE INDEX traffic_by_time ON traffic (id)")  # the last thing that the upgrade makes
    with pytest.raises(UserError, match="could not be opened"):
        TrafficStore(store_at)
    execute(store_at, "DROP INDEX traffic_by_time")
    with TrafficStore(store_at) as store:
        assert store.count() == 3


def test_the_revisions_are_those_of_the_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "ontopic" / "traffic" / "migrations"))
    scripts = ScriptDirectory.from_config(config)
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == REVISIONS


def test_the_database_of_another_tool_is_shared(store_at: Path | str) -> None:
    execute(store_at, "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    execute(store_at, "INSERT INTO alembic_version VALUES ('of another tool')")
    with TrafficStore(store_at) as store:
        store.add(Record(question="q", answer="a"))
    with TrafficStore(store_at) as store:
        assert store.count() == 1


def store_of_0006(store_at: Path | str) -> list[Record]:
    """A store of the release before conversations shared their turns, and what is in it."""
    old_store(store_at, 3)
    url = sql.URL.create("sqlite", database=str(store_at)) if isinstance(store_at, Path) else sql.make_url(store_at)
    engine = sql.create_engine(url.set(drivername="sqlite" if isinstance(store_at, Path) else "postgresql+psycopg"))
    config = Config()
    with engine.begin() as connection:
        config.attributes |= {"connection": connection, "version_table": "traffic_version"}
        config.set_main_option("script_location", str(ROOT / "ontopic" / "traffic" / "migrations"))
        command.upgrade(config, "0006")
        records = [*conversations(1200), alone()]
        for record in records:
            said = record.model_dump(mode="json") | {"stored_at": NOON.replace(tzinfo=None)}
            said |= {name: json.dumps(said[name]) if said[name] else None for name in ("messages", "parameters")}
            row = {name: said[name] for name in (*COLUMNS, "stored_at")} | {"asked_at": said["asked_at"][:19]}
            names = ", ".join(row)
            values = ", ".join(f":{name}" for name in row)
            connection.execute(sql.text(f"INSERT INTO traffic ({names}) VALUES ({values})"), row)  # noqa: S608
    engine.dispose()
    return records


def conversations(n: int) -> Iterator[Record]:
    """Records of so many conversations of two turns, the second ones all later than the first."""
    parameters = Parameters(max_tokens=9, temperature=0.5, stop=("\n", "€"))
    for turn in range(2):
        for i in range(n):
            first = [Message(role="system", content="Be brief. €"), Message(role="user", content=f"q{i}")]
            later = [Message(role="assistant", content="a0"), Message(role="user", content="and then?")]
            yield Record(
                question=["q" + str(i), "and then?"][turn],
                answer=f"a{turn}",
                id=f"{turn}-{i:05}",
                model_version="v1",
                registered_model="ontopic-banking",
                asked_at=NOON + timedelta(seconds=turn * n + i),
                messages=(*first, *later) if turn else tuple(first),
                parameters=parameters,
                conversation=f"c{i}",
            )


def alone() -> Record:
    """A record whose conversation nothing says."""
    turns = (
        Message(role="user", content="x"),
        Message(role="assistant", content="y"),
        Message(role="user", content="q"),
    )
    return Record(question="q", answer="a", id="alone", asked_at=NOON, messages=turns)


def test_a_store_of_0006_is_brought_along_and_shares_its_turns(store_at: Path | str) -> None:
    records = store_of_0006(store_at)
    with TrafficStore(store_at) as store:
        stored = {record.id: record for record in store.records()}
        assert [stored[record.id] for record in records] == records
        assert len(stored) == len(records) + 3
        assert store.ids(conversation="c7") == ["0-00007", "1-00007"]
        with store._engine.connect() as connection:
            rows = connection.exec_driver_sql(
                "SELECT id, messages, parent, conversation, parameters FROM traffic"
            ).all()
            n_prompts = connection.exec_driver_sql("SELECT count(*) FROM prompt").scalar()
        assert n_prompts == 1
        # Nothing of a request is there twice, but where nothing says what it follows.
        assert {row.id for row in rows if row.messages is not None} == {"alone"}
        assert sum(row.parent is not None for row in rows) == 1200
        assert {(row.conversation, row.parameters) for row in rows} == {("", None)}
        following = records[1207].messages
        more = (*following, Message(role="assistant", content="a1"), Message(role="user", content="q3"))
        store.add(records[1207].model_copy(update={"id": "2-00007", "question": "q3", "messages": more}))
        assert store.records(["2-00007"])[0].messages == more


def test_a_process_of_0006_that_still_runs_goes_on_writing(store_at: Path | str) -> None:
    TrafficStore(store_at).close()
    columns = f"{', '.join(COLUMNS)}, stored_at"
    messages = '[{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]'
    values = "'o', '2026-03-01', 'v1', 'q', 'a', 0, 1, 1, true, 'ontopic-banking', '{m}', '{p}', 'c', '2026-03-01'"
    values = values.format(m=messages, p='{"max_tokens": 3, "temperature": 0.0}')
    execute(store_at, f"INSERT INTO traffic ({columns}) VALUES ({values})")  # noqa: S608
    with TrafficStore(store_at) as store:
        (record,) = store.records()
        assert store.ids(conversation="c") == ["o"]
    assert (record.parameters, record.conversation) == (Parameters(max_tokens=3), "c")
    assert [message.content for message in record.messages] == ["s", "q"]
