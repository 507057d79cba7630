"""Runs, traces and data sets in MLflow, without what is erased."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ontopic.registry.promotions import open_registry, registered_models
from ontopic.state.erased_files import erase_from_file, holds, scrub
from ontopic.state.erasing import Erasing
from ontopic.state.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

PREFERENCES = "preferences.json"
"""The artifact of a run that holds what a challenger was trained on; its hash is a parameter of the run."""
_TEXTS = (".json", ".html", ".jsonl", ".csv", ".txt")
_PAGE = 100


def note_trained(workspace: Workspace, preferences_sha256: str, *, erasing: Erasing) -> None:
    """Note which versions were trained on preferences that hold some of it."""
    for name in registered_models(workspace):
        registry = open_registry(workspace, name)
        for version in registry.versions():
            if preferences_sha256 == registry.tags_of(version).get("ontopic.preferences_sha256"):
                erasing.note("trained", f"version {version} of {name} was trained on some of it")


def erase_from_server(workspace: Workspace, erasing: Erasing) -> None:
    """Log artifacts that hold some anew without it, and delete such traces; what the server refuses is noted."""
    import mlflow
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(workspace.mlflow_uri)  # where the rows of a data set are sought
    client = MlflowClient(tracking_uri=workspace.mlflow_uri)
    try:
        experiments = [found for name in registered_models(workspace) if (found := client.get_experiment_by_name(name))]
        for experiment in experiments:
            for run in _runs(client, experiment.experiment_id):
                _run(client, run, workspace=workspace, erasing=erasing)
            _questions_and_answers(client, experiment.experiment_id, erasing=erasing)
    except (MlflowException, OSError) as error:
        erasing.note("left", f"MLflow at {workspace.mlflow_uri}", value=str(error).splitlines()[0][:200])


def erase_from_own(workspace: Workspace, erasing: Erasing) -> None:
    """Delete traces and rows of data sets in the state folder's own MLflow. What else its files and its database hold
    is erased as in any file; a trace that lost a text alone could not be read any more."""
    path = workspace.mlflow_file
    if not path.is_file() or not _holds_answers(path):
        return
    import mlflow
    from mlflow import MlflowClient

    mlflow.set_tracking_uri(workspace.mlflow_uri)  # where the rows of a data set are sought
    client = MlflowClient(tracking_uri=workspace.mlflow_uri)
    before = erasing.counts()
    for name in registered_models(workspace):
        if experiment := client.get_experiment_by_name(name):
            _questions_and_answers(client, experiment.experiment_id, erasing=erasing)
    if erasing.counts() != before:
        with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as database:
            scrub(database)


def _holds_answers(path: Path) -> bool:
    """Whether there is anything, which is known without the seconds that MLflow takes."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return any(
            table in tables and database.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()  # noqa: S608
            for table in ("trace_info", "evaluation_dataset_records")
        )


def _questions_and_answers(client: MlflowClient, experiment: str, *, erasing: Erasing) -> None:
    _traces(client, experiment, erasing=erasing)
    _data_sets(client, experiment, erasing=erasing)


def _runs(client: MlflowClient, experiment: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], max_results=_PAGE, page_token=token)
        yield from page
        if not (token := page.token):
            return


def _run(client: MlflowClient, run: Any, *, workspace: Workspace, erasing: Erasing) -> None:
    from mlflow.exceptions import MlflowException

    for path in _artifacts(client, run.info.run_id):
        with tempfile.TemporaryDirectory() as folder:
            local = Path(client.download_artifacts(run.info.run_id, path, folder))
            if not erase_from_file(local, erasing):
                continue
            if not local.exists():  # by this interface an artifact can be replaced, but not deleted
                local.write_text("erased\n", encoding="utf-8")
            if path == PREFERENCES:
                note_trained(workspace, run.data.params.get("preferences_sha256", ""), erasing=erasing)
            try:
                client.log_artifact(run.info.run_id, str(local), str(PurePosixPath(path).parent).removeprefix("."))
                erasing.count("artifacts on the MLflow server")
            except (MlflowException, OSError) as error:
                erasing.note(
                    "left", f"{path} of MLflow's run {run.info.run_id}", value=str(error).splitlines()[0][:200]
                )


def _artifacts(client: MlflowClient, run_id: str, *, folder: str = "") -> Iterator[str]:
    for each in client.list_artifacts(run_id, folder or None):
        if each.is_dir:
            yield from _artifacts(client, run_id, folder=each.path)
        elif each.path.endswith(_TEXTS):
            yield each.path


def _traces(client: MlflowClient, experiment: str, *, erasing: Erasing) -> None:
    held, token = [], None
    while True:
        page = client.search_traces(locations=[experiment], max_results=_PAGE, page_token=token)
        for trace in page:
            if holds(trace.to_dict(), erasing):
                _trace_artifacts(trace, erasing)
                held.append(trace.info.trace_id)
        if not (token := page.token):
            break
    for start in range(0, len(held), _PAGE):  # at the end: a page is counted from the first trace that is there
        gone = client.delete_traces(experiment, trace_ids=held[start : start + _PAGE])
        erasing.count("traces in MLflow", gone)


def _data_sets(client: MlflowClient, experiment: str, *, erasing: Erasing) -> None:
    token = None
    while True:
        page = client.search_datasets(experiment_ids=[experiment], page_token=token)
        for each in page:
            held = [row.dataset_record_id for row in each.records if holds(row.to_dict(), erasing)]
            if held:
                erasing.count("rows of data sets in MLflow", each.delete_records(held))
        if not (token := page.token):
            return


def _trace_artifacts(trace: Any, erasing: Erasing) -> None:
    """The copy of a trace in the artifact store, which stays where the trace is deleted."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    where = trace.info.tags.get("mlflow.artifactLocation")
    try:
        if where:
            get_artifact_repository(where).delete_artifacts()
    except (MlflowException, NotImplementedError, OSError) as error:
        erasing.note("left", f"the artifacts of MLflow's trace {trace.info.trace_id}", value=type(error).__name__)
