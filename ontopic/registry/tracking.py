"""MLflow: experiments and the prompt registry."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import mlflow
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException

from ontopic.config.network import reach_this_machine_directly
from ontopic.registry.mlflow_client import reach
from ontopic.registry.mlflow_pages import comparison_page
from ontopic.state.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

_DESCRIPTION = """\
One policy's assistant: what it answers, how that is judged, and why a version is its champion.

- **Evaluation runs**: each gate's two models on the same questions. Tick challenger and champion and compare: question
  by question, with the verdict on each answer.
- **Traces**: a sample of the traffic that was served, with its verdicts and what people said of it; a gate's answers
  are among them, under the name `gate`.
- **Review**: answers that wait for a person's label; `python run.py label --from mlflow` takes the labels in.
- **Models** (under *Model training*): why the champion is champion, and what each version's gate found.
"""
# The kind decides with which of its two views MLflow opens an experiment.
_ABOUT = {"mlflow.experimentKind": "genai_development", "mlflow.note.content": _DESCRIPTION}


def open_tracking(workspace: Workspace, experiment: str) -> str:
    """Point MLflow at the workspace (or at the user's own server) and make ``experiment`` the active one.

    Returns:
        The experiment's id.
    """
    reach_this_machine_directly()  # MLflow's client reads the environment's proxies by itself
    os.environ["MLFLOW_TRACKING_URI"] = workspace.mlflow_uri
    mlflow.set_tracking_uri(workspace.mlflow_uri)
    reach(workspace)
    found = mlflow.get_experiment_by_name(experiment)
    if found is not None and found.lifecycle_stage == LifecycleStage.DELETED:
        mlflow.MlflowClient().restore_experiment(found.experiment_id)
        print(f"MLflow's experiment {experiment!r} was deleted; it is restored, with its runs", file=sys.stderr)
    if found is None:
        # MLflow's default artifact location is ./mlruns, outside the state folder.
        location = workspace.artifacts.as_uri() if workspace.owns_mlflow else None
        mlflow.create_experiment(experiment, artifact_location=location)
    opened = mlflow.set_experiment(experiment)
    for key, value in _ABOUT.items():
        if key not in opened.tags:  # a user's own words stay
            mlflow.MlflowClient().set_experiment_tag(opened.experiment_id, key, value)
    return str(opened.experiment_id)


def log_data_set(table: pd.DataFrame, name: str, *, context: str, sha256: str) -> None:
    """Say in the active run what it is of, without a text of it: who may see a run need not see what was asked.

    Args:
        table: columns that hold no texts of users'.
        context: what the run used it for.
        sha256: of all of it.
    """
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.pandas_dataset import from_pandas

    data_set = from_pandas(table, CodeDatasetSource({}), name=name, digest=sha256[:8])
    mlflow.log_input(data_set, context=context)


def register_prompts(prompts: Mapping[str, str]) -> dict[str, str]:
    """Put judge prompts into MLflow's prompt registry, each as a new version only where it differs from its newest one.

    Args:
        prompts: texts by name.

    Returns:
        The prompts' URIs by name, ``prompts:/ontopic-judge-NAME/VERSION``.
    """
    uris = {}
    for each, template in prompts.items():
        name = f"ontopic-judge-{each}"
        try:
            newest = mlflow.genai.load_prompt(f"prompts:/{name}@latest", allow_missing=True)
        except MlflowException:
            newest = None
        if newest is None or newest.template != template:
            newest = mlflow.genai.register_prompt(name=name, template=template, commit_message=f"judge prompt {each}")
        uris[each] = f"prompts:/{name}/{newest.version}"
    return uris


def close_stale_runs(workspace: Workspace, experiment: str) -> None:
    """End the runs that a killed process left running. Call while holding the state folder's lock.

    Only in the state folder's own database: on a user's server, others may be running.
    """
    if not workspace.owns_mlflow:
        return
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(experiment)
    for run in client.search_runs([found.experiment_id], "attributes.status = 'RUNNING'") if found else []:
        client.set_terminated(run.info.run_id, status="KILLED")


def comparison_path(experiment_id: str) -> str:
    """``comparison_page`` of the newest gate in an experiment."""
    found = mlflow.search_runs(
        [experiment_id], "tags.stage = 'evaluation'", order_by=["attributes.start_time DESC"], output_format="list"
    )
    newest = {run.data.tags.get("role"): run.info.run_id for run in reversed(found)}
    return comparison_page(experiment_id, {str(role): run for role, run in newest.items()})
