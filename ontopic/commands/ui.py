"""``ui``: MLflow's pages and Evidently's."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from ontopic.commands.options import ROOT, Project, console, on_project
from ontopic.commands.page_server import HOST, PageServer, check_port, running, wait_for_end
from ontopic.errors import UserError
from ontopic.state.workspace import Workspace


@on_project
def ui(
    project: Project,
    *,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the UI.")] = 5000,
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
    check_port(port)
    server = PageServer(
        name="Evidently",
        module="evidently.cli",
        arguments=["ui", "--workspace", str(workspace.evidently), "--host", HOST, "--port", str(port)],
        port=port,
        ready_path="/api/version",
        log=workspace.ui_log(port),
        first="ontopic.reports.metrics",  # to read the values of our metrics it has to know them
    )
    _serve(server, [f"Evidently: http://{HOST}:{port}/projects, project {name}"])


def _mlflow(workspace: Workspace, name: str, *, port: int) -> None:
    elsewhere = workspace.mlflow_uri.startswith("http")
    if not elsewhere:
        check_port(port)
    from ontopic.registry.tracking import comparison_path, open_tracking

    experiment = open_tracking(workspace, name)
    comparison = comparison_path(experiment)
    if elsewhere:
        console.print(f"MLflow: {workspace.mlflow_uri}/{comparison}")
        return
    arguments = ["ui", "--backend-store-uri", workspace.mlflow_uri]
    arguments += ["--default-artifact-root", str(workspace.artifacts)]
    arguments += ["--host", HOST, "--port", str(port), "--workers", "1"]
    # Uvicorn looks for modules in the folder that it is started in, unless it is given another.
    quiet = f"--log-level warning --timeout-graceful-shutdown 2 --app-dir {shlex.quote(str(ROOT))}"
    server = PageServer(
        name="MLflow",
        module="mlflow",
        arguments=[*arguments, "--uvicorn-opts", quiet],
        port=port,
        ready_path="/health",
        log=workspace.ui_log(port),
        environment={
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # some ten processes of 400 MB, for jobs that nobody starts
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it asks the network for prices at its start
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
    )
    base = f"http://{HOST}:{port}"
    links = [f"Experiment: {base}/#/experiments/{experiment}", f"Champion against challenger: {base}/{comparison}"]
    _serve(server, links)


def _serve(server: PageServer, links: Sequence[str]) -> None:
    """Start a server, say where its pages are once they are there, and end it on Ctrl-C."""
    print(f"{server.name} starts; Ctrl-C ends it", file=sys.stderr, flush=True)
    try:
        with running(server) as process:
            for link in links:
                console.print(link)
            wait_for_end(server, process)
    except KeyboardInterrupt:
        print("stopped")
