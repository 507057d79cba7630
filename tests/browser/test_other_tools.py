"""What is written for other tools' pages does nothing there: MLflow's and Evidently's, each with its own server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from browser.hostile_texts import ALL, cycled
from browser.made_pages import gate_sides
from browser.watched import Watched, watched
from loopback import ROOT
from playwright.sync_api import Browser

from ontopic.commands.page_server import PageServer, running
from ontopic.commands.tool_pages import tools_of
from ontopic.config.policy import Policy
from ontopic.state.workspace import Workspace, open_workspace

pytestmark = pytest.mark.slow
_DRAWS_MS = 6_000
_N = 40
_OWN = 'parent.owned = 1; top.document.title = "owned"; alert(1)'


@dataclass
class Logged:
    """MLflow with a hostile gate in it, which is served.

    Attributes:
        base: of its pages.
        experiment: its id; ``runs`` by role.
    """

    base: str
    experiment: str
    runs: dict[str, str]
    comparison: str


@contextmanager
def ready(server: PageServer) -> Iterator[str]:
    """The address of a server's pages, once it answers."""
    with running([server]) as (started,):
        while not started.is_ready():
            time.sleep(0.2)
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("state")
    shutil.unpack_archive(ROOT / "tests" / "data" / "state-0.1.tar.gz", folder)  # seconds less than a new database
    return open_workspace(folder)


@pytest.fixture(scope="module")
def logged(workspace: Workspace, banking: Policy) -> Iterator[Logged]:
    import mlflow

    from ontopic.evaluation.gate_runs import log_answers
    from ontopic.registry.tracking import comparison_path, open_tracking

    name = banking.registered_model
    experiment, runs = open_tracking(workspace, name), {}
    sides = gate_sides(banking, cycled, name=ALL, n=_N)
    for role, side in zip(("champion", "challenger"), sides, strict=True):
        with mlflow.start_run(run_name=f"{role} {ALL}"[:250], tags={"role": role, "said": ALL[:5000]}) as run:
            mlflow.log_param("said", ALL[:5000])
            runs[role] = run.info.run_id
        of = side.evaluation
        log_answers(of, registered_model=name, run_id=runs[role], experiment=experiment, uri=workspace.mlflow_uri)
    (tool,) = (each for each in tools_of(workspace, name) if each.name == "MLflow")
    assert tool.server is not None
    with ready(tool.server) as base:
        yield Logged(base, experiment, runs, comparison_path(experiment))


def _visited(browser: Browser, address: str, *, shows: str = "") -> Iterator[Watched]:
    with watched(browser, address) as seen:
        if shows:
            seen.page.get_by_text(shows).first.wait_for(timeout=30_000)
        seen.page.wait_for_timeout(_DRAWS_MS)
        yield seen


_PATHS = {
    "runs": "#/experiments/{experiment}/runs",
    "a run": "#/experiments/{experiment}/runs/{run}",
    "traces": "#/experiments/{experiment}/traces",
    "sessions": "#/experiments/{experiment}/chat-sessions",
    "data sets": "#/experiments/{experiment}/datasets",
    "compared": "{comparison}",
    "models": "#/models",
}


@pytest.mark.parametrize("path", _PATHS.values(), ids=_PATHS)
def test_mlflow_shows_texts_as_texts(browser: Browser, logged: Logged, path: str) -> None:
    filled = path.format(experiment=logged.experiment, run=logged.runs["challenger"], comparison=logged.comparison)
    for seen in _visited(browser, f"{logged.base}/{filled}"):
        seen.assert_not_owned()


def test_mlflow_shows_a_trace_as_text(browser: Browser, logged: Logged) -> None:
    for seen in _visited(browser, f"{logged.base}/#/experiments/{logged.experiment}/traces", shows="mark"):
        seen.page.get_by_text("mark").first.dispatch_event("click")
        seen.page.wait_for_timeout(_DRAWS_MS)
        seen.assert_not_owned()


def test_evidently_shows_texts_as_texts(
    browser: Browser, workspace: Workspace, banking: Policy, tmp_path: Path
) -> None:
    from browser.made_pages import closed_window, judged

    from ontopic.monitoring.dashboard import Dashboard
    from ontopic.monitoring.window_snapshot import window_snapshot

    of = Workspace(root=tmp_path, mlflow_uri=workspace.mlflow_uri)
    policy = banking.model_copy(update={"subject": ALL})
    dashboard, windows = Dashboard(of.evidently, policy), []
    for number in range(3):
        traffic = judged(20, 5, cycled, model=f"1 {ALL}", judge_id=f"judge {ALL}")
        window = closed_window(policy, traffic, name=ALL, number=number)
        assert window.result is not None
        dashboard.add(window_snapshot(policy, window, result=window.result, judged=traffic, promoted=True), window)
        windows.append(window)
    dashboard.show(windows, windows[0].start)
    (tool,) = (each for each in tools_of(of, policy.registered_model) if each.name == "Evidently")
    assert tool.server is not None
    with ready(tool.server) as base:
        (project,) = (each for each in of.evidently.iterdir() if (each / "metadata.json").is_file())
        for path in ("projects", f"projects/{project.name}", f"projects/{project.name}/reports"):
            for seen in _visited(browser, f"{base}/{path}"):
                seen.assert_not_owned()


def test_zenml_shows_a_page_whose_scripts_do_not_run(browser: Browser, tmp_path: Path) -> None:
    page, said, state = (tmp_path / name for name in ("gate.html", "said.txt", "state"))
    # Worse than ours can be: a page whose script was not made inert.
    page.write_text(
        f"<!doctype html><title>gate</title><p>drawn</p><script>{_OWN}</script><img src=x onerror='{_OWN}'>"
    )
    said.write_text(ALL[:5000], encoding="utf-8")
    command = [sys.executable, str(Path(__file__).with_name("paged_run.py")), *map(str, (state, page, said))]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    run = done.stdout.rpartition("run ")[2].strip()
    (tool,) = (each for each in tools_of(open_workspace(state), "ontopic-banking") if each.name == "ZenML")
    assert tool.server is not None, tool.said
    with ready(tool.server) as base, watched(browser, f"{base}/projects/default/runs/{run}") as seen:
        seen.page.get_by_text("decision", exact=True).first.click(timeout=60_000)
        seen.page.get_by_role("tab", name="Visualization").click()
        seen.page.get_by_text("Load Preview").click()
        frame = seen.page.frame_locator("iframe")
        frame.get_by_text("drawn").wait_for(timeout=30_000)
        seen.page.wait_for_timeout(_DRAWS_MS)
        assert seen.page.evaluate("window.owned === undefined && document.title !== 'owned'"), "a script ran"
        assert not [fault for fault in seen.faults if fault.startswith("dialog")]
        assert seen.page.locator("iframe").get_attribute("sandbox") == ""
        # ZenML's page asks for its logos elsewhere; nothing else was asked for.
        assert all("owned" not in fault for fault in seen.faults), seen.faults[:5]
