"""``ui``: every page that there is of a state folder, behind one index page."""

from __future__ import annotations

import os
import sys
import time
import webbrowser
from typing import TYPE_CHECKING, Annotated

import typer

from ontopic.commands.faults import mistakes_behind
from ontopic.commands.options import Project, console, on_project
from ontopic.commands.page_server import Running, check_port, free_ports, running
from ontopic.commands.tool_pages import ToolPage, in_words, mlflow_is_current, mlflow_links, tools_of
from ontopic.errors import UserError
from ontopic.visible import visible

if TYPE_CHECKING:
    from ontopic.commands.index_app import Index

_PREFERRED_PORT = 5000
_A_LOOK_S = 0.2


@on_project
def ui(
    project: Project,
    *,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of the index page; 5000 where it is free.", show_default=False),
    ] = None,
) -> None:
    """Open the index page: champion, challenger, windows, alerts, every report, and MLflow's, Evidently's and ZenML's
    pages. Ctrl-C ends it all."""
    port = _port(port)
    workspace, name = project.workspace, project.policy.registered_model
    tools = tools_of(workspace, name)
    if not mlflow_is_current(workspace) and any(tool.server and tool.name == "MLflow" for tool in tools):
        mlflow_links(workspace, name, base="")  # brings the database up to date, which its server refuses otherwise
    from ontopic.commands.index_app import Index, serving  # starlette, jinja2: not for --help

    print("The pages start; Ctrl-C ends them", file=sys.stderr, flush=True)
    index = Index(project, port=port, tools=tools)
    try:
        with running([tool.server for tool in tools if tool.server]) as servers, serving(index):
            console.print(f"Index: {index.url}")
            console.print(f"Token to approve or reject there: {index.token}")
            _open(index.url)
            _wait_until_ready(index, servers)
            _link_mlflow(index, project)
            _watch(index, servers)
    except KeyboardInterrupt:
        console.print("stopped")


def _port(given: int | None) -> int:
    """The port that was asked for, else the preferred one where it is free, else any.

    Raises:
        UserError: the one that was asked for is taken.
    """
    try:
        check_port(given or _PREFERRED_PORT)
    except UserError:
        if given:
            raise
        return free_ports(1)[0]
    return given or _PREFERRED_PORT


def _open(url: str) -> None:
    """Open a page in the browser, where a person sits before one."""
    display = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.stdout.isatty() and display:
        webbrowser.open(url)


def _wait_until_ready(index: Index, servers: list[Running]) -> None:
    """Print each tool's links as soon as it answers, and why one does not."""
    _say([tool for tool in index.tools if tool.state != "starting"])
    waiting = {each.server.name: each for each in servers}
    while waiting:
        for name, server in list(waiting.items()):
            try:
                if not server.is_ready():
                    continue
                tool = index.update(name, state="ready")
            except UserError as error:
                tool = index.update(name, state="failed", said=str(error))
            del waiting[name]
            _say([tool])
        time.sleep(_A_LOOK_S)


def _link_mlflow(index: Index, project: Project) -> None:
    """Once it answers, find what is worth opening in MLflow; that takes seconds, in which all else is there already."""
    tool = next(each for each in index.tools if each.name == "MLflow")
    if tool.state != "ready":
        return
    name, base = project.policy.registered_model, tool.links[0].url.rstrip("/")
    try:
        links = mlflow_links(project.workspace, name, base=base)
    except Exception as error:  # a server elsewhere that is down; a fault of ours stays one
        mistakes = mistakes_behind(error)
        if mistakes is None:
            raise
        _say([index.update("MLflow", state="failed", said="; ".join(mistakes))])
        return
    index.update("MLflow", links=links)
    for link in links:
        console.print(f"MLflow, {link.text}: {link.url}")


def _watch(index: Index, servers: list[Running]) -> None:
    """Until a signal ends it: say once where a server has ended by itself."""
    while True:
        for server in servers:
            name = server.server.name
            if any(tool.name == name and tool.state == "ready" for tool in index.tools):
                try:
                    server.check()
                except UserError as error:
                    _say([index.update(name, state="failed", said=str(error))])
        time.sleep(5 * _A_LOOK_S)


def _say(tools: list[ToolPage]) -> None:
    for line in in_words(tools):
        console.print(visible(line))
