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

import psutil
import pytest
from loopback import ROOT

from ontopic.commands.page_server import PageServer, check_port, running, wait_for_end
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
# `ui` on that server.
LAUNCHER = """
import sys
from pathlib import Path
from ontopic.commands import page_server, ui
page_server._GRACE_S = 0.5
port, log = int(sys.argv[1]), Path(sys.argv[2])
ui._serve(page_server.PageServer(name="Stubborn", module="stubborn_server", arguments=[str(port)], port=port,
    ready_path="/", log=log), ["a link"])
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


@pytest.mark.parametrize("monitoring", [(), ("--monitoring",)])
def test_a_taken_port_is_one_sentence_and_nothing_starts(
    state_here: Path, taken: int, monitoring: tuple[str, ...]
) -> None:
    process = run("--port", str(taken), *monitoring, state=state_here)
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
    check_port(free_port())


@pytest.mark.parametrize(
    ("arguments", "path"),
    [((), "/ajax-api/2.0/mlflow/experiments/get?experiment_id=0"), (("--monitoring",), "/api/projects")],
)
def test_the_pages_are_there_when_the_links_are_and_all_ends_with_ctrl_c(
    state_here: Path, arguments: tuple[str, ...], path: str
) -> None:
    (state_here.parent / "mlflow.py").write_text("raise SystemExit('a file of the user, no module')")
    port = free_port()
    process = run("--port", str(port), *arguments, state=state_here)
    assert process.stdout
    first = process.stdout.readline()
    assert f"http://127.0.0.1:{port}/" in first
    assert answers(port, path)
    servers = group(psutil.Process(process.pid))
    assert 1 <= len(servers) <= 2
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.splitlines()[-1]) == (0, "stopped")
    assert len(err.splitlines()) == 1
    assert "starts; Ctrl-C ends it" in err
    assert not [each for each in servers if each.is_running()]
    assert not answers(port)
    said = (state_here / f"ui-{port}.log").read_text()
    assert "Warning" not in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)]
)
def test_no_signal_leaves_a_process_on_the_port(stubborn: str, tmp_path: Path, number: int, code: int) -> None:
    port = free_port()
    command = [sys.executable, "-c", LAUNCHER, str(port), str(tmp_path / "ui.log")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "a link\n"
    servers = group(psutil.Process(process.pid))
    assert len(servers) == 2
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert err == "Stubborn starts; Ctrl-C ends it\n"
    psutil.wait_procs(servers, timeout=10)
    assert not [each for each in servers if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    assert not answers(port)


def test_a_server_that_dies_is_said(stubborn: str, tmp_path: Path) -> None:
    port = free_port()
    server = PageServer(
        name="Stubborn", module=stubborn, arguments=["broken"], port=port, ready_path="/", log=tmp_path / "ui.log"
    )
    with pytest.raises(UserError, match="Stubborn's server ended while it started") as raised, running(server):
        pass
    assert "the database is locked" in str(raised.value)

    server = server.model_copy(update={"arguments": [str(port)]})
    with pytest.raises(UserError, match="Stubborn's server ended; the end of its log"), running(server) as process:
        process.kill()
        wait_for_end(server, process)
    time.sleep(0.1)
    assert not answers(port)
