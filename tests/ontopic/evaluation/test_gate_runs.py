"""The gate in MLflow: two evaluation runs over one data set, an answer a trace with its verdict and scope."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import mlflow
import pytest
from evaluations import evaluated, judged, without_verdicts
from loopback import ROOT
from mlflow.entities import Trace

from ontopic.evaluation.answers import Evaluation
from ontopic.evaluation.gate_runs import IN, OUT, SCOPE, log_answers
from ontopic.registry.mlflow_file import open_file
from ontopic.registry.tracking import comparison_path, open_tracking
from ontopic.state.workspace import Workspace, open_workspace

NAME = "ontopic-test"
N, FAILING = 6, 2


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str, dict[str, str]]:
    """The workspace, the experiment and the runs of champion and challenger."""
    folder = tmp_path_factory.mktemp("state")
    shutil.unpack_archive(ROOT / "tests" / "data" / "state-0.1.tar.gz", folder)  # seconds less than a new database
    workspace = open_workspace(folder)
    experiment = open_tracking(workspace, NAME)
    asked = {
        "champion": judged(N, N - 1, model="1"),
        "challenger": without_verdicts(judged(N, FAILING, model="2"), lambda i: i == N - 1),
    }
    runs = {}
    for role, answers in asked.items():
        with mlflow.start_run(run_name=role, tags={"role": role, "stage": "evaluation"}) as run:
            runs[role] = run.info.run_id
        log(evaluated(answers).evaluation, runs[role], experiment, uri=workspace.mlflow_uri)
    log(evaluated(asked["challenger"]).evaluation, runs["challenger"], experiment, uri=workspace.mlflow_uri)
    return workspace, experiment, runs


def log(evaluation: Evaluation, run: str, experiment: str, *, uri: str) -> None:
    log_answers(evaluation, registered_model=NAME, run_id=run, experiment=experiment, uri=uri)


def traces_of(experiment: str, run: str) -> list[Trace]:
    return list(mlflow.search_traces(locations=[experiment], run_id=run, return_type="list"))


def test_each_answer_is_one_trace_with_verdict_and_scope(gate: tuple[Workspace, str, dict[str, str]]) -> None:
    _, experiment, runs = gate
    found = traces_of(experiment, runs["challenger"])
    assert len(found) == N  # though they were logged twice
    by_question = {trace.info.request_preview: trace for trace in found}
    values = {}
    for question, trace in by_question.items():
        said = {each.name: each for each in trace.info.assessments}
        assert set(said) == {"passes", "scope"} and len(trace.info.assessments) == 2
        assert said["passes"].source.source_id == "judge-1" and said["passes"].run_id == runs["challenger"]
        values[question] = said["passes"].feedback.value if said["passes"].error is None else said["passes"].error
        assert trace.data.spans[0].inputs == {"messages": [{"role": "user", "content": question}]}
        assert trace.data.spans[0].outputs == f"Answer of 2 to {question.split()[1].rstrip('?')}."
    passed = [values[f"Question {i}?"] for i in range(N - 1)]
    assert passed == ["no"] * FAILING + ["yes"] * (N - 1 - FAILING)
    assert values[f"Question {N - 1}?"].error_message == "timeout"  # and no failure
    scopes = [
        each.value for i in (0, 1) for each in by_question[f"Question {i}?"].info.assessments if each.name == SCOPE
    ]
    assert scopes == [IN, OUT]


def test_both_runs_are_over_one_data_set(gate: tuple[Workspace, str, dict[str, str]]) -> None:
    _, experiment, runs = gate
    (found,) = mlflow.MlflowClient().search_datasets(experiment_ids=[experiment])
    assert len(found.records) == N
    assert {row.expectations["in_scope"] for row in found.records} == {True, False}
    for run in map(mlflow.get_run, runs.values()):
        (logged,) = run.inputs.dataset_inputs
        assert logged.dataset.name == found.name and logged.dataset.digest == found.digest
        assert run.data.tags["mlflow.runType"] == "genai_evaluate"


def test_the_link_compares_the_newest_challenger_with_its_champion(
    gate: tuple[Workspace, str, dict[str, str]], tmp_path: Path
) -> None:
    workspace, experiment, runs = gate
    page = urlsplit(comparison_path(experiment).removeprefix("#"))
    assert page.path == f"/experiments/{experiment}/evaluation-runs"
    wanted = {"selectedRunUuid": [runs["challenger"]], "compareToRunUuid": [runs["champion"]]}
    assert parse_qs(page.query) == wanted
    tables = open_file(workspace.mlflow_file, NAME)  # as `ui` finds it, without MLflow
    assert tables is not None and tables.evaluations() == (experiment, runs)
    empty = mlflow.create_experiment("empty")
    assert comparison_path(empty) == f"#/experiments/{empty}/evaluation-runs"


def test_the_experiment_opens_on_its_genai_pages_and_says_what_is_where(
    gate: tuple[Workspace, str, dict[str, str]],
) -> None:
    workspace, experiment, _ = gate
    tags = mlflow.get_experiment(experiment).tags
    assert tags["mlflow.experimentKind"] == "genai_development"
    assert "Evaluation runs" in tags["mlflow.note.content"]
    client = mlflow.MlflowClient()
    client.set_experiment_tag(experiment, "mlflow.note.content", "ours")
    open_tracking(workspace, NAME)
    assert mlflow.get_experiment(experiment).tags["mlflow.note.content"] == "ours"


def test_no_gate_fails_for_a_server_that_takes_no_traces(
    gate: tuple[Workspace, str, dict[str, str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, experiment, runs = gate
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    log(evaluated(judged(N, 0)).evaluation, runs["champion"], experiment, uri="http://127.0.0.1:9")
    assert "MLflow does not take the gate's answers as traces; the gate goes on (" in capsys.readouterr().err
