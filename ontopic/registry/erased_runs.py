"""Runs and traces on an MLflow server of the user's, without what is erased."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ontopic.registry.promotions import open_registry, registered_models
from ontopic.state.erased_files import erase_from_file, holds
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
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=workspace.mlflow_uri)
    try:
        experiments = [found for name in registered_models(workspace) if (found := client.get_experiment_by_name(name))]
        for experiment in experiments:
            for run in _runs(client, experiment.experiment_id):
                _run(client, run, workspace=workspace, erasing=erasing)
            _traces(client, experiment.experiment_id, erasing=erasing)
    except (MlflowException, OSError) as error:
        erasing.note("left", f"MLflow at {workspace.mlflow_uri}", value=str(error).splitlines()[0][:200])


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
    token = None
    while True:
        page = client.search_traces(locations=[experiment], max_results=_PAGE, page_token=token)
        held = [trace for trace in page if holds(trace.to_dict(), erasing)]
        for trace in held:
            _trace_artifacts(trace, erasing)
        if held:
            ids = [trace.info.trace_id for trace in held]
            erasing.count("traces on the MLflow server", client.delete_traces(experiment, trace_ids=ids))
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
