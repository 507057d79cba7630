"""``ui``: MLflow's pages and Evidently's."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ontopic.commands.options import Project, console, on_project, until_ctrl_c
from ontopic.errors import UserError
from ontopic.state.workspace import Workspace


@on_project
def ui(
    project: Project,
    *,
    port: Annotated[int, typer.Option(help="Port of the UI.")] = 5000,
    monitoring: Annotated[
        bool, typer.Option("--monitoring", help="Evidently's dashboard of the windows, not MLflow.")
    ] = False,
) -> None:
    """Open the MLflow UI, with champion and challenger ready to compare. Ctrl-C ends it."""
    name = project.policy.registered_model
    if monitoring:
        _evidently(project.workspace, name, port=port)
    else:
        _mlflow(project.workspace, name, port=port)


def _evidently(workspace: Workspace, name: str, *, port: int) -> None:
    if not workspace.evidently.is_dir():
        raise UserError("there is no closed window yet; watch some traffic: python run.py watch")
    console.print(f"Evidently: http://127.0.0.1:{port}/projects, project {name}")
    # Evidently's server has to know our metrics to read their values.
    started = "import runpy, ontopic.reports.metrics; runpy.run_module('evidently.cli', run_name='__main__')"
    command = [sys.executable, "-c", started, "ui", "--workspace", str(workspace.evidently)]
    until_ctrl_c([*command, "--port", str(port)])


def _mlflow(workspace: Workspace, name: str, *, port: int) -> None:
    from ontopic.registry.tracking import comparison_path, open_tracking

    experiment = open_tracking(workspace, name)
    if workspace.mlflow_uri.startswith("http"):
        console.print(f"MLflow: {workspace.mlflow_uri}/{comparison_path(experiment)}")
        return
    base = f"http://127.0.0.1:{port}"
    console.print(f"Experiment: {base}/#/experiments/{experiment}")
    console.print(f"Champion against challenger: {base}/{comparison_path(experiment)}")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", workspace.mlflow_uri]
    command += ["--default-artifact-root", str(workspace.artifacts), "--port", str(port), "--workers", "1"]
    until_ctrl_c(command)
