"""An MLflow of the user's loses what is erased: tables are logged anew without it, traces that hold it are deleted."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pytest

from ontopic.registry.erased_runs import PREFERENCES, erase_from_server
from ontopic.state.erasing import Erasing
from ontopic.state.workspace import Workspace

NAME = "ontopic-banking"
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
        assert erasing.counts() == {"artifacts on the MLflow server": 2, "traces on the MLflow server": 1}
    table = json.loads(Path(client.download_artifacts(run.info.run_id, PREFERENCES, str(tmp_path))).read_text())
    assert table["data"] == [["robin?", "b"]]
    files = [path for path in theirs.root.parent.rglob("*") if path.is_file() and path.suffix != ".db"]
    assert [path for path in files if b"kanarie" in path.read_bytes()] == []
    (trace,) = client.search_traces(locations=[experiment.experiment_id])
    assert "robin" in json.dumps(trace.to_dict())


def test_a_server_that_cannot_be_reached_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = Workspace(root=tmp_path, mlflow_uri="http://127.0.0.1:9")
    with Erasing(tmp_path / "erasing.db") as erasing:
        erasing.add([], [QUESTION])
        erase_from_server(away, erasing)
        assert list(erasing.notes("left")) == ["MLflow at http://127.0.0.1:9"]
