"""The pages that other tools have of a state folder: MLflow's, Evidently's and ZenML's."""

from __future__ import annotations

import importlib.metadata
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict

from ontopic.commands.options import ROOT
from ontopic.commands.page_server import HOST, PageServer, free_ports
from ontopic.state.workspace import Workspace

_ZENML_NEEDS = ("fastapi", "pyjwt", "python-multipart", "uvicorn", "secure", "tldextract", "ipinfo", "itsdangerous")


class Link(BaseModel):
    """A page to open.

    Attributes:
        text: what is found there.
    """

    model_config = ConfigDict(frozen=True)
    text: str
    url: str


class ToolPage(BaseModel):
    """A tool's pages as they stand.

    Attributes:
        what: is found there, in a few words.
        server: that is to be started; ``None`` where there is nothing to start.
        state: ``absent`` where there is nothing to show or to show it with.
        said: why it failed or is absent, in a sentence.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    what: str
    links: list[Link] = []
    server: PageServer | None = None
    state: Literal["starting", "ready", "failed", "absent"] = "starting"
    said: str = ""


def tools_of(workspace: Workspace, name: str) -> list[ToolPage]:
    """The tools, each with the server to start where one is.

    Args:
        name: of the registered model, after which experiment and project are called.
    """
    mlflow, evidently, zenml = free_ports(3)
    return [_mlflow(workspace, mlflow), _evidently(workspace, name, port=evidently), _zenml(workspace, zenml)]


def mlflow_links(workspace: Workspace, name: str, *, base: str) -> list[Link]:
    """What to open in MLflow. Where it keeps its data elsewhere, or as another release does, imports it, which takes
    seconds, and brings its database up to date.

    Args:
        base: of MLflow's pages.
    """
    from ontopic.registry import mlflow_file  # with SQLAlchemy, which --help need not wait for
    from ontopic.registry.mlflow_pages import comparison_page

    tables = mlflow_file.open_file(workspace.mlflow_file, name) if workspace.owns_mlflow else None
    known = tables.evaluations() if tables else None
    if known is None:
        from ontopic.registry.tracking import comparison_path, open_tracking

        experiment = open_tracking(workspace, name)
        compared = comparison_path(experiment)
    else:
        experiment, runs = known
        compared = comparison_page(experiment, runs)
    return [
        Link(text="Champion against challenger", url=f"{base}/{compared}"),
        Link(text="Experiment", url=f"{base}/#/experiments/{experiment}"),
    ]


def mlflow_is_current(workspace: Workspace) -> bool:
    """Whether MLflow's database in the state folder is as this release of MLflow writes it."""
    from ontopic.registry import mlflow_file  # with SQLAlchemy, which --help need not wait for

    return mlflow_file.open_file(workspace.mlflow_file, "") is not None


def _mlflow(workspace: Workspace, port: int) -> ToolPage:
    what = "runs, evaluations and model versions, to compare"
    if workspace.mlflow_uri.startswith(("http://", "https://")):
        url = without_password(workspace.mlflow_uri)
        return ToolPage(name="MLflow", what=what, state="ready", links=[Link(text="MLflow", url=url)])
    if workspace.owns_mlflow and not workspace.mlflow_file.is_file():
        return ToolPage(name="MLflow", what=what, state="absent", said="nothing was logged yet; run python run.py")
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
        log=workspace.ui_log("mlflow"),
        environment={
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # some ten processes of 400 MB, for jobs that nobody starts
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it asks the network for prices at its start
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
    )
    return ToolPage(name="MLflow", what=what, server=server, links=[_at(port, "MLflow")])


def _evidently(workspace: Workspace, name: str, *, port: int) -> ToolPage:
    what = "a dashboard of the windows"
    if not workspace.evidently.is_dir():
        return ToolPage(
            name="Evidently", what=what, state="absent", said="no window is closed yet; run python run.py watch"
        )
    server = PageServer(
        name="Evidently",
        module="evidently.cli",
        arguments=["ui", "--workspace", str(workspace.evidently), "--host", HOST, "--port", str(port)],
        port=port,
        ready_path="/api/version",
        log=workspace.ui_log("evidently"),
        first="ontopic.reports.metrics",  # to read the values of our metrics it has to know them
    )
    path = _project_path(workspace.evidently, name)
    return ToolPage(name="Evidently", what=what, server=server, links=[_at(port, f"Project {name}", path=path)])


def _project_path(folder: Path, name: str) -> str:
    """Of a project's page, or of the list of projects, which Evidently serves at the root alone."""
    for metadata in sorted(folder.glob("*/metadata.json")):
        if json.loads(metadata.read_text(encoding="utf-8")).get("name") == name:
            return f"/projects/{metadata.parent.name}"
    return "/"


def _zenml(workspace: Workspace, port: int) -> ToolPage:
    what = "pipelines, steps and what went from one to the next"
    if not workspace.zenml_database.is_file():
        said = "no pipeline ran on the stack of the state folder; a stack of your own has a dashboard of its own"
        return ToolPage(name="ZenML", what=what, state="absent", said=said)
    if lacking := [each for each in _ZENML_NEEDS if not _is_installed(each)]:
        said = f"its server lacks {', '.join(lacking)}; pip install -c constraints.txt -e '.[dashboard]'"
        return ToolPage(name="ZenML", what=what, state="absent", said=said)
    arguments = ["zenml.zen_server.zen_server_api:app", "--host", HOST, "--port", str(port), "--log-level", "warning"]
    server = PageServer(
        name="ZenML",
        module="uvicorn",
        arguments=[*arguments, "--timeout-graceful-shutdown", "2", "--app-dir", str(ROOT)],
        port=port,
        ready_path="/ready",
        log=workspace.ui_log("zenml"),
        # As `zenml login --local` starts it, but that nothing is written into ZenML's configuration, so that a
        # dashboard that was closed is nothing to the next loop.
        environment={
            "ZENML_SERVER": "true",
            "ZENML_SERVER_ALLOW_LOCAL_FILE_ACCESS": "true",
            "ZENML_SERVER_AUTH_SCHEME": "NO_AUTH",
            "ZENML_SERVER_DEPLOYMENT_TYPE": "local",
            "ZENML_SERVER_AUTO_ACTIVATE": "True",
            "ZENML_DISABLE_DATABASE_MIGRATION": "True",
            "ZENML_ANALYTICS_OPT_IN": "false",
            "ZENML_CONFIG_PATH": str(workspace.zenml / "dashboard"),
            "ZENML_LOCAL_STORES_PATH": str(workspace.zenml_database.parents[1]),
            "ZENML_STORE_TYPE": "sql",
            "ZENML_STORE_URL": f"sqlite:///{workspace.zenml_database}",
        },
    )
    return ToolPage(
        name="ZenML",
        what=what,
        server=server,
        links=[_at(port, "Runs of the pipelines", path="/projects/default/runs")],
    )


def _at(port: int, text: str, *, path: str = "/") -> Link:
    return Link(text=text, url=f"http://{HOST}:{port}{path}")


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def without_password(url: str) -> str:
    """A URL as it may be shown: without user name and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def in_words(tools: Sequence[ToolPage]) -> list[str]:
    """A line for each link of what is ready, and one for what failed or is absent."""
    lines = []
    for tool in tools:
        if tool.state == "ready":
            lines += [f"{tool.name}, {link.text}: {link.url}" for link in tool.links]
        elif tool.said:
            lines.append(f"{tool.name}: {tool.said}")
    return lines
