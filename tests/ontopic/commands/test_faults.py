"""What other systems say when they fail, as one sentence each; and that a fault of ours stays a traceback."""

from __future__ import annotations

import errno
import os
import sqlite3
import ssl
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql
import yaml
from loopback import ROOT

from ontopic.commands.faults import mistakes_behind
from ontopic.errors import UserError
from ontopic.state.sqlite_file import sqlite_engine, sqlite_url


def said_of(action: Callable[[], object]) -> tuple[str, ...] | None:
    """The sentences for what an action raises."""
    try:
        action()
    except Exception as error:
        return mistakes_behind(error)
    raise AssertionError("nothing was raised")


def one(action: Callable[[], object]) -> str:
    said = said_of(action)
    assert said is not None and len(said) == 1 and "\n" not in said[0], said
    return said[0]


def table(path: Path) -> sql.Engine:
    """An engine on a file with one table ``t``."""
    engine = sqlite_engine(sqlite_url(path), timeout_s=0.1, pooled=False)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS t (x)")
    return engine


def insert(engine: sql.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (zeroblob(100000))")


def test_a_database_that_another_process_writes(tmp_path: Path) -> None:
    engine = table(tmp_path / "a.db")
    with closing(sqlite3.connect(tmp_path / "a.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        said = one(lambda: insert(engine))
    assert said.startswith(f"{tmp_path}/a.db: database is locked; another process is writing it")


def test_a_full_disk_under_a_database(tmp_path: Path) -> None:
    table(tmp_path / "a.db")
    engine = sqlite_engine(sqlite_url(tmp_path / "a.db"), pragmas=("max_page_count=3",))
    assert one(lambda: insert(engine)) == f"{tmp_path}/a.db: database or disk is full; make room on that disk"


def test_a_damaged_database(tmp_path: Path) -> None:
    engine = table(tmp_path / "a.db")
    (tmp_path / "a.db").write_bytes(b"garbage " * 2000)
    assert one(lambda: insert(engine)).startswith(f"{tmp_path}/a.db: file is not a database; it is damaged")


def test_a_database_that_went_read_only(tmp_path: Path) -> None:
    engine = sqlite_engine(sqlite_url(tmp_path / "a.db"), pragmas=("query_only=ON",))
    table(tmp_path / "a.db")
    assert "attempt to write a readonly database; it may not be written" in one(lambda: insert(engine))


def test_a_wrong_statement_is_a_fault_of_ours(tmp_path: Path) -> None:
    engine = table(tmp_path / "a.db")

    def wrong() -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO none VALUES (1)")

    assert said_of(wrong) is None


def test_postgresql_that_is_down_is_named_without_its_password() -> None:
    pytest.importorskip("psycopg")
    engine = sql.create_engine("postgresql+psycopg://u:secret@127.0.0.1:9/x", connect_args={"connect_timeout": 2})
    said = one(lambda: engine.connect())
    assert "Connection refused" in said and "ONTOPIC_TRAFFIC_URL" in said and "secret" not in said


def raised(number: int) -> None:
    raise OSError(number, os.strerror(number), "/a/place")


@pytest.mark.parametrize(
    ("number", "to_do"),
    [
        (errno.ENOSPC, "No space left on device; make room"),
        (errno.EROFS, "Read-only file system; give a place that may be written"),
        (errno.EACCES, "Permission denied; see to its permissions"),
        (errno.EMFILE, "Too many open files; let a process open more files"),
        (errno.ENAMETOOLONG, "File name too long; give a shorter path"),
        (errno.ENOTDIR, "Not a directory; there is a file where a folder should be"),
        (errno.EDQUOT, "make room on that disk"),
    ],
)
def test_a_place_that_cannot_be_used(number: int, to_do: str) -> None:
    said = one(lambda: raised(number))
    assert said.startswith("/a/place: ") and to_do in said


def test_a_file_that_we_should_have_made_is_a_fault_of_ours(tmp_path: Path) -> None:
    assert said_of(lambda: (tmp_path / "none").read_text()) is None
    assert said_of(lambda: {}["none"]) is None
    assert said_of(lambda: int("none")) is None


def test_a_server_that_is_not_there() -> None:
    said = one(lambda: urllib.request.urlopen("http://127.0.0.1:9", timeout=5))
    assert said.startswith("a server could not be reached (")

    def refused() -> None:
        raise ssl.SSLCertVerificationError("certificate has expired")

    assert "certificate has expired" in one(refused)


def test_yaml_of_others_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: 1\nb: [\n")

    def read() -> None:
        with path.open() as file:
            yaml.safe_load(file)

    assert one(read).startswith(f"{path}:3: is not valid YAML (")


def test_a_fault_of_ours_beside_anothers_stays_a_traceback() -> None:
    # Compiled as a module of ours.
    code = "def both(raised):\n  try:\n    raised(28)\n  except OSError:\n    {}['none']\n"
    module: dict[str, Any] = {"__name__": "ontopic.somewhere"}
    exec(code, module)  # noqa: S102
    assert said_of(lambda: module["both"](raised)) is None


def test_a_users_mistake_is_found_behind_what_wraps_it() -> None:
    def wrapped() -> None:
        try:
            raise UserError("a is wrong", "b is too")
        except UserError as error:
            raise RuntimeError("a step failed") from error

    assert said_of(wrapped) == ("a is wrong", "b is too")


def test_what_mlflow_says_is_inert_and_without_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://u:secret@host:5000")

    def failed() -> None:
        raise MlflowException("<html><b>no\x1b[31m access</b>\n at http://u:secret@host" + "x" * 9000)

    said = one(failed)
    assert said == "MLflow (http://host:5000): no [31m access; see to it there and run again"


def test_what_zenml_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from zenml.exceptions import IllegalOperationError
    from zenml.utils import source_utils
    from zenml.utils.source_utils import load

    # pytest-xdist's processes have no main file, from which ZenML would tell it
    monkeypatch.setattr(source_utils, "_CUSTOM_SOURCE_ROOT", str(ROOT))

    def failed() -> None:
        raise IllegalOperationError("not allowed\nmore")

    assert one(failed).startswith("ZenML: not allowed; see to your ZenML stack")
    assert said_of(lambda: load("ontopic.none.at.all")) is None  # neither does it say what a user could mend
