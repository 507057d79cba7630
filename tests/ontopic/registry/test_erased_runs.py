"""An MLflow of the user's loses what is erased: tables are logged anew without it, traces that hold it are deleted."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import pytest

from ontopic.records import Record
from ontopic.registry import erased_runs
from ontopic.registry.erased_runs import PREFERENCES, erase_from_own, erase_from_server
from ontopic.registry.logged_traces import log_traces
from ontopic.registry.tracking import open_tracking
from ontopic.state.erasing import Erasing
from ontopic.state.workspace import Workspace, open_workspace
from ontopic.traffic.traces import as_trace

NAME = "ontopic-banking"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
QUESTION = 'Why is "my card" blocked,\nund was heißt das denn? kanarie'


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Somebody else's database, with a version, its run and two traces."""
    root = tmp_path_factory.mktemp("theirs")
    uri = f"sqlite:///{root / 'elsewhere.db'}"
    mlflow.set_tracking_uri(uri)  # where a trace goes, whatever its client says
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment(NAME, artifact_location=(root / "artifacts").as_uri())
    run = client.create_run(experiment).info.run_id
    client.log_param(run, "preferences_sha256", "hash of the pairs")
    rows = {"columns": ["question", "chosen"], "data": [[QUESTION, "a"], ["robin?", "b"]]}
    client.log_dict(run, rows, PREFERENCES)
    client.log_text(run, f"<html><p>{QUESTION}</p></html>", "gate/page.html")
    client.log_dict(run, {"fine": ["robin"]}, "gate/decision.json")
    client.create_registered_model(NAME)
    version = client.create_model_version(NAME, f"runs:/{run}/model", run_id=run).version
    for key, value in (("ontopic.complete", "true"), ("ontopic.preferences_sha256", "hash of the pairs")):
        client.set_model_version_tag(NAME, version, key, value)
    for question in (QUESTION, "robin?"):
        trace = client.start_trace("chat", inputs={"messages": [{"content": question}]}, experiment_id=experiment)
        client.end_trace(trace.trace_id, outputs="an answer")
    mlflow.flush_trace_async_logging()
    return Workspace(root=root / "state", mlflow_uri=uri)


@pytest.mark.slow
def test_tables_are_logged_anew_and_traces_deleted(theirs: Workspace, tmp_path: Path) -> None:
    client = mlflow.MlflowClient(tracking_uri=theirs.mlflow_uri)
    (experiment,) = [each for each in client.search_experiments() if each.name == NAME]
    (run,) = client.search_runs([experiment.experiment_id])
    with Erasing(tmp_path / "erasing.db") as erasing:
        erasing.add([], [QUESTION])
        erase_from_server(theirs, erasing)
        assert erasing.notes("left") == {}
        assert list(erasing.notes("trained")) == [f"version 1 of {NAME} was trained on some of it"]
        assert erasing.counts() == {"artifacts on the MLflow server": 2, "traces in MLflow": 1}
    table = json.loads(Path(client.download_artifacts(run.info.run_id, PREFERENCES, str(tmp_path))).read_text())
    assert table["data"] == [["robin?", "b"]]
    files = [path for path in theirs.root.parent.rglob("*") if path.is_file() and path.suffix != ".db"]
    assert [path for path in files if b"kanarie" in path.read_bytes()] == []
    (trace,) = client.search_traces(locations=[experiment.experiment_id])
    assert "robin" in json.dumps(trace.to_dict())


@pytest.fixture
def own(state_before: Path) -> Workspace:
    """The state folder's own MLflow, with a trace and a row of a data set for each of five questions."""
    workspace = open_workspace(state_before)
    experiment = open_tracking(workspace, NAME)
    asked = [QUESTION, "robin?", QUESTION, "wren?", QUESTION]
    records = [Record(question=q, answer="an answer", id=str(i), asked_at=NOON) for i, q in enumerate(asked)]
    log_traces([as_trace(record, experiment=experiment) for record in records], experiment, uri=workspace.mlflow_uri)
    data = mlflow.MlflowClient().create_dataset("questions", experiment_id=[experiment])
    data.merge_records([{"inputs": {"messages": record.request}} for record in records])
    return workspace


def test_our_own_mlflow_loses_traces_and_rows_as_a_whole(
    own: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left can be read, on whichever page of the search it was."""
    monkeypatch.setattr(erased_runs, "_PAGE", 2)
    with Erasing(tmp_path / "erasing.db") as erasing:
        erasing.add([], [QUESTION])
        erase_from_own(own, erasing)
        assert erasing.counts() == {"traces in MLflow": 3, "rows of data sets in MLflow": 1}
    client = mlflow.MlflowClient(tracking_uri=own.mlflow_uri)
    experiment = client.get_experiment_by_name(NAME).experiment_id
    left = [trace.info.request_preview for trace in client.search_traces(locations=[experiment])]
    (data,) = client.search_datasets(experiment_ids=[experiment])
    assert sorted(left) == ["robin?", "wren?"] and len(data.records) == 2
    assert b"kanarie" not in own.mlflow_file.read_bytes()


def test_mlflow_is_not_loaded_where_nothing_was_logged(state_before: Path, tmp_path: Path) -> None:
    workspace = open_workspace(state_before)
    with Erasing(tmp_path / "erasing.db") as erasing:
        erasing.add([], [QUESTION])
        assert not erased_runs._holds_answers(workspace.mlflow_file)
        erase_from_own(workspace, erasing)
        assert erasing.counts() == {}


def test_a_server_that_cannot_be_reached_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = Workspace(root=tmp_path, mlflow_uri="http://127.0.0.1:9")
    with Erasing(tmp_path / "erasing.db") as erasing:
        erasing.add([], [QUESTION])
        erase_from_server(away, erasing)
        assert list(erasing.notes("left")) == ["MLflow at http://127.0.0.1:9"]
