"""SQLite files of an older release: tables get the columns and keys of this one, whole or not at all."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sql
from loopback import ROOT

from ontopic.errors import UserError
from ontopic.state.tables import ModelTables, model_column

METADATA = sql.MetaData()
THINGS = sql.Table(
    "things",
    METADATA,
    model_column(primary_key=True),
    sql.Column("name", sql.String, primary_key=True),
    sql.Column("value", sql.Integer),
    sql.Index("things_by_value", "registered_model", "value"),
)
SHARED = sql.Table("shared", METADATA, sql.Column("n", sql.Integer, primary_key=True))
OLD = """CREATE TABLE things (name VARCHAR NOT NULL, value INTEGER, PRIMARY KEY (name));
CREATE UNIQUE INDEX things_by_value ON things (value);
INSERT INTO things VALUES ('a', 1), ('b', 2);"""


class Things(ModelTables):
    def __init__(self, path: Path, registered_model: str = "ontopic-banking") -> None:
        super().__init__(path, registered_model, metadata=METADATA, what="the things")


def execute(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def rows(path: Path) -> list[tuple[str, str, int]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT registered_model, name, value FROM things ORDER BY name, value").fetchall()


def test_rows_stay_and_the_same_key_may_be_another_models(tmp_path: Path) -> None:
    path = tmp_path / "things.db"
    execute(path, OLD)
    with Things(path) as things:
        assert rows(path) == [("", "a", 1), ("", "b", 2)]
        assert things.unnamed() == 2
        execute(path, "INSERT INTO things VALUES ('ontopic-travel', 'a', 1)")  # neither key nor index is in its way
        assert (things.adopt("ontopic-banking"), things.unnamed()) == (2, 0)
    assert rows(path)[:2] == [("ontopic-banking", "a", 1), ("ontopic-travel", "a", 1)]
    with closing(sqlite3.connect(path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert tables == {"things", "shared"}


def test_a_row_whose_key_is_taken_gives_way(tmp_path: Path) -> None:
    path = tmp_path / "things.db"
    execute(path, OLD)
    with Things(path) as things:
        execute(path, "INSERT INTO things VALUES ('ontopic-banking', 'a', 9)")  # newer than the upgrade
        assert (things.adopt("ontopic-banking"), things.unnamed()) == (1, 0)
    assert rows(path) == [("ontopic-banking", "a", 9), ("ontopic-banking", "b", 2)]


def test_a_process_of_the_older_release_goes_on_writing(tmp_path: Path) -> None:
    path = tmp_path / "things.db"
    execute(path, OLD)
    Things(path).close()
    execute(path, "INSERT INTO things (name, value) VALUES ('c', 3)")
    with Things(path) as things:
        assert things.unnamed() == 3


def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "things.db"
    execute(path, OLD + "CREATE TABLE things_before (n INTEGER);")  # the upgrade's own name for the table
    with pytest.raises(UserError, match="the things cannot be read"):
        Things(path)
    execute(path, "DROP TABLE things_before")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM things").fetchall() == [("a", 1), ("b", 2)]
        assert "things_by_value" in str(connection.execute("SELECT name FROM sqlite_master").fetchall())
    with Things(path) as things:
        assert things.unnamed() == 2


def test_processes_that_open_it_at_once_upgrade_it_once(tmp_path: Path) -> None:
    path = tmp_path / "windows.db"
    execute(path, "CREATE TABLE kept (name VARCHAR NOT NULL, value VARCHAR NOT NULL, PRIMARY KEY (name));")
    execute(path, "INSERT INTO kept VALUES ('since', 'x')")
    code = (
        "import sys; from pathlib import Path; from ontopic.monitoring.windows import WindowStore;"
        "sys.stdin.read(1); print(WindowStore(Path(sys.argv[1]), 'ontopic-banking').unnamed())"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    others = [subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, **pipes) for _ in range(4)]
    said = []
    for other in others:
        assert other.stdin
        other.stdin.write(b"x")
        other.stdin.flush()
    for other in others:
        said.append(other.communicate(timeout=60)[0].strip())
    assert said == [b"1"] * 4
