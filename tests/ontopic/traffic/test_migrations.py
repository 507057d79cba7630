"""Traffic stores of other releases, and in the database of another tool."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sql
from alembic.config import Config
from alembic.script import ScriptDirectory
from loopback import ROOT

from ontopic.errors import UserError
from ontopic.records import Record
from ontopic.traffic.schema import REVISIONS
from ontopic.traffic.store import TrafficStore

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
    command = [sys.executable, "-c", code, str(store_at)]
    others = [subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE) for _ in range(5)]
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
