"""The command ``ui``: MLflow's and Evidently's servers."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from loopback import ROOT

from ontopic.commands.page_server import PageServer, Running, check_port, free_ports, running
from ontopic.commands.tool_pages import tools_of, without_password
from ontopic.errors import UserError
from ontopic.state.moved import settle
from ontopic.state.workspace import open_workspace

# A server that starts another process, and neither ends on SIGTERM.
STUBBORN = """
import http.server, multiprocessing, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("what the server says")
if sys.argv[1:] == ["broken"]:
    sys.exit("the database is locked")
if __name__ == "__main__":
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)).start()
    http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
"""
# Two of those at once.
LAUNCHER = """
import sys, time
from pathlib import Path
from ontopic.commands import page_server
page_server._GRACE_S = 0.5
servers = [page_server.PageServer(name=f"Stubborn {port}", module="stubborn_server", arguments=[port], port=int(port),
    ready_path="/", log=Path(sys.argv[1]) / port) for port in sys.argv[2:]]
with page_server.running(servers) as started:
    while not all(each.is_ready() for each in started):
        time.sleep(0.05)
    print("ready", flush=True)
    time.sleep(600)
"""


def answers(port: int, path: str = "/") -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def group(launcher: psutil.Process) -> list[psutil.Process]:
    return launcher.children(recursive=True)


@pytest.fixture
def stubborn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that is such a server."""
    (tmp_path / "stubborn_server.py").write_text(STUBBORN)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    return "stubborn_server"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of the loopback interface that another program listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield int(other.getsockname()[1])


def run(*arguments: str, state: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "run.py"), "ui", "--state", str(state), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=state.parent)


@pytest.fixture
def state_here(state_before: Path) -> Path:
    """The state folder of the release before, opened once at its new place."""
    settle(open_workspace(state_before))
    return state_before


def test_a_taken_port_is_one_sentence_and_nothing_starts(state_here: Path, taken: int) -> None:
    process = run("--port", str(taken), state=state_here)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    assert err == f"error: port {taken} is taken by another program; end it, or give another port with --port\n"
    assert not list(state_here.glob("ui*"))


def test_a_port_taken_on_all_addresses_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))  # noqa: S104
        other.listen()
        with pytest.raises(UserError, match="is taken by another program"):
            check_port(other.getsockname()[1])
    check_port(free_ports(1)[0])


@pytest.mark.slow
def test_the_pages_are_there_when_the_links_are_and_all_ends_with_ctrl_c(state_here: Path) -> None:
    """MLflow's server and Evidently's take some 15 seconds of two cores to start."""
    (state_here.parent / "mlflow.py").write_text("raise SystemExit('a file of the user, no module')")
    port = free_ports(1)[0]
    process = run("--port", str(port), state=state_here)
    assert process.stdout
    lines = iter(process.stdout.readline, "")
    assert next(lines) == f"Index: http://127.0.0.1:{port}/\n"
    assert answers(port)
    assert "Token" in next(lines)
    links: dict[str, str] = {}
    while not links.keys() >= {"MLflow, Experiment", "Evidently, Project ontopic-banking"}:
        name, _, url = next(lines).strip().partition(": ")
        links[name] = url
    assert "no pipeline ran" in links["ZenML"]
    for name, path in (("MLflow, Experiment", "/health"), ("Evidently, Project ontopic-banking", "/api/projects")):
        assert answers(urlsplit(links[name]).port or 0, path)
        assert answers(urlsplit(links[name]).port or 0, urlsplit(links[name]).path)
    servers = group(psutil.Process(process.pid))
    assert 2 <= len(servers) <= 4
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.splitlines()[-1]) == (0, "stopped")
    assert err == "The pages start; Ctrl-C ends them\n"
    assert not [each for each in servers if each.is_running()]
    assert not answers(port)
    for log in state_here.glob("ui-*.log"):
        assert "Warning" not in log.read_text() and "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)]
)
def test_no_signal_leaves_a_process_on_the_ports(stubborn: str, tmp_path: Path, number: int, code: int) -> None:
    ports = free_ports(2)
    command = [sys.executable, "-c", LAUNCHER, str(tmp_path), *map(str, ports)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    servers = group(psutil.Process(process.pid))
    assert len(servers) == 4
    began = time.monotonic()
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode in (code, -number)
    psutil.wait_procs(servers, timeout=10)
    assert not [each for each in servers if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    assert not any(map(answers, ports))
    assert time.monotonic() - began < 15


def test_of_two_servers_one_that_dies_is_said_and_the_other_stays(stubborn: str, tmp_path: Path) -> None:
    ports = free_ports(2)
    good, broken = (
        PageServer(name=name, module=stubborn, arguments=[given], port=port, ready_path="/", log=tmp_path / name)
        for name, given, port in (("Good", str(ports[0]), ports[0]), ("Broken", "broken", ports[1]))
    )
    with running([broken, good]) as (dead, alive):
        assert ready(alive)
        with pytest.raises(UserError) as raised:
            ready(dead)
        ended = f"Broken's server ended while it started (the database is locked); see {tmp_path / 'Broken'}"
        assert str(raised.value) == ended
        assert answers(ports[0])
        alive.ask_to_end()  # which it does not do
        alive.check()
        alive.end(time.monotonic())
        with pytest.raises(UserError, match="Good's server ended"):
            alive.check()
    assert not answers(ports[0])


def ready(server: Running) -> bool:
    deadline = time.monotonic() + 60
    while not server.is_ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return True


def test_free_ports_are_free_and_not_the_same() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports[:3]:
        check_port(port)


def test_what_there_is_starts_and_what_there_is_not_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = open_workspace(tmp_path)
    absent = tools_of(workspace, "ontopic-banking")
    assert [(tool.name, tool.state, tool.server) for tool in absent] == [
        (name, "absent", None) for name in ("MLflow", "Evidently", "ZenML")
    ]
    assert all(tool.said for tool in absent)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ann:secret@tracking.example/mlflow")
    (mlflow, *_) = tools_of(open_workspace(tmp_path), "ontopic-banking")
    assert (mlflow.state, mlflow.server, mlflow.links[0].url) == ("ready", None, "https://tracking.example/mlflow")
    assert without_password("http://127.0.0.1:5000") == "http://127.0.0.1:5000"
    workspace.evidently.mkdir()
    workspace.zenml_database.parent.mkdir(parents=True)
    workspace.zenml_database.touch()
    _, evidently, zenml = tools_of(workspace, "ontopic-banking")
    assert evidently.server and evidently.server.log == tmp_path / "ui-evidently.log"
    assert zenml.server or "dashboard" in zenml.said
