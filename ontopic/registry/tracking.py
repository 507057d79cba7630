"""MLflow: experiments and the prompt registry."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from urllib.parse import quote

import mlflow
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException

from ontopic.config.network import reach_this_machine_directly
from ontopic.registry.mlflow_client import reach
from ontopic.state.workspace import Workspace


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
    return str(mlflow.set_experiment(experiment).experiment_id)


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
    """Path of MLflow's page that compares the newest evaluations of a champion and a challenger."""
    found = mlflow.search_runs(
        [experiment_id], "tags.stage = 'evaluation'", order_by=["attributes.start_time DESC"], output_format="list"
    )
    newest = {run.data.tags.get("role"): run.info.run_id for run in reversed(found)}
    runs = json.dumps([newest[role] for role in ("champion", "challenger") if role in newest])
    return f"#/compare-runs?runs={quote(runs)}&experiments={quote(json.dumps([experiment_id]))}"
