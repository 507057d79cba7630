"""MLflow as it is found: an experiment that was deleted, a database of another release, a server that is none."""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest
import sqlalchemy as sql
from alembic import command
from alembic.util import CommandError
from mlflow.store.db.utils import _get_alembic_config, _get_latest_schema_revision
from mlflow.store.tracking.dbmodels.initial_models import Base

from ontopic.commands.faults import mistakes_behind
from ontopic.registry import mlflow_client
from ontopic.registry.mlflow_client import reach
from ontopic.registry.promotions import open_registry
from ontopic.registry.tracking import open_tracking
from ontopic.state.workspace import open_workspace

NAME = "ontopic-banking"
OLDER = "b7e2c1a4d9f3"  # a revision of MLflow 3's


@pytest.fixture(autouse=True)
def nothing_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_client, "_reached", set())
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # `open_tracking` leaves it for ZenML
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_an_experiment_that_was_deleted_is_restored(state_before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = open_workspace(state_before)
    experiment = open_tracking(workspace, NAME)
    client = mlflow.MlflowClient()
    runs = len(client.search_runs([experiment]))
    client.delete_experiment(experiment)
    assert open_tracking(workspace, NAME) == experiment
    assert f"{NAME!r} was deleted; it is restored, with its runs" in capsys.readouterr().err
    assert len(client.search_runs([experiment])) == runs > 0
    open_tracking(workspace, NAME)
    assert capsys.readouterr().err == ""


def revision(path: Path) -> str:
    with closing(sqlite3.connect(path)) as database:
        return str(database.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def database_of(path: Path, revision: str) -> None:
    """A database as an older release of MLflow made it."""
    engine = sql.create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    config = _get_alembic_config(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def test_our_database_of_an_older_release_is_upgraded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = open_workspace(tmp_path)
    database_of(workspace.mlflow_file, OLDER)
    mlflow_client._upgrade(workspace.mlflow_file)  # MLflow asks for it only where no table is new
    assert revision(workspace.mlflow_file) == _get_latest_schema_revision() != OLDER
    assert "mlflow.db was of an older release of MLflow; it is upgraded" in capsys.readouterr().err
    assert {path.name for path in workspace.root.iterdir()} == {"mlflow.db", "mlflow.db.lock"}


def test_our_database_of_a_newer_release_is_left_and_said(state_before: Path) -> None:
    workspace = open_workspace(state_before)
    with closing(sqlite3.connect(workspace.mlflow_file)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'of the next'")
        database.execute("ALTER TABLE registered_model_aliases ADD COLUMN since INTEGER")
    before = workspace.mlflow_file.read_bytes()
    with pytest.raises(CommandError) as raised:
        open_registry(workspace, "x")
    (sentence,) = mistakes_behind(raised.value) or ("",)
    assert sentence.startswith("a database in the state folder is of a newer release of MLflow or ZenML")
    assert workspace.mlflow_file.read_bytes() == before


@pytest.fixture
def answers() -> Iterator[tuple[str, dict[str, bytes]]]:
    """The address of a server, and what it answers to all: a whole HTTP response."""
    said = {"response": b""}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))  # else the client hears of a reset
            self.wfile.write(said["response"])
            self.close_connection = True

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://u:secret@127.0.0.1:{server.server_port}", said
        server.shutdown()


def response(status: str, body: str, kind: str = "text/html") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return (head + body).encode()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            response("401 Unauthorized", "<h1>who are you?</h1>"),
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        ),
        (response("403 Forbidden", "no"), "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (response("404 Not Found", "nothing here"), "error code 404"),
        (response("503 Service Unavailable", "later"), "too many 503"),
        (response("200 OK", "<html>\n<body>Log in</body></html>"), "not in a valid JSON format"),
        (response("200 OK", "[]", "application/json"), "not in a valid JSON format"),
        (response("200 OK", '{"experiments": "many"}', "application/json"), "no MLflow server (ParseError)"),
        (b"\x00 no HTTP", "Connection aborted"),
        (b"", "Connection aborted"),
    ],
    ids=["401", "403", "404", "503", "page", "list", "other JSON", "noise", "nothing"],
)
def test_a_server_that_is_no_mlflow_is_one_sentence(
    tmp_path: Path,
    answers: tuple[str, dict[str, bytes]],
    answer: bytes,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, server = answers
    server["response"] = answer
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    with pytest.raises(Exception) as raised:  # MLflow's or ours
        reach(open_workspace(tmp_path, make=False))
    (sentence,) = mistakes_behind(raised.value) or ("",)
    assert said in sentence and "secret" not in sentence and "\n" not in sentence


def test_a_server_that_is_down_is_given_up_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{taken.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(mlflow.MlflowException) as raised:
            open_registry(open_workspace(tmp_path), "x")
    assert time.monotonic() - start < 15
    assert "no answer ([Errno 111] Connection refused)" in (mistakes_behind(raised.value) or ("",))[0]
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ  # a server that answers is waited for in the loop


@pytest.mark.parametrize(("uri", "left"), [("", False), ("http://theirs:5000", True)])
def test_what_another_program_left_in_the_environment_is_not_used(
    tmp_path: Path, uri: str, left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv(name, "another's")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    open_workspace(tmp_path)
    assert not {"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"} & set(os.environ)
    assert ("MLFLOW_REGISTRY_URI" in os.environ) is left


def test_a_run_is_begun_whatever_the_environment_says(state_before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123456789abcdef0123456789abcdef")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "77")
    experiment = open_tracking(open_workspace(state_before), NAME)
    with mlflow.start_run() as run:
        assert run.info.experiment_id == experiment
