"""The service as a process: how it fails to start, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from loopback import ROOT
from served import smol

from ontopic.errors import UserError
from serving.process import ServedModel

LAUNCHER = """
import sys, time
from pathlib import Path
from serving.process import ServedModel, Serving
folder, state, port = sys.argv[1:]
state = Path(state)
given = {"model_folder": Path(folder), "model_version": "v1", "model_name": "smol"}
with ServedModel(Serving(**given, traffic=state / "traffic.db", state=state, port=int(port))) as served:
    print(served.base_url, flush=True)
    time.sleep(600)
"""


def test_a_model_that_does_not_load_is_told_from_the_log(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    state = tmp_path / "state"
    with pytest.raises(UserError, match="holds no model"):
        ServedModel(smol(tmp_path / "empty", state, model_version="v1")).__enter__()
    assert not (state / "serving.json").exists()


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_taken_port_is_named(tmp_path: Path, taken_port: int) -> None:
    with pytest.raises(UserError, match=rf"port {taken_port} .*set serving\.port"):
        ServedModel(smol(tmp_path, tmp_path, model_version="v1", port=taken_port)).__enter__()
    assert not (tmp_path / "serving.json").exists()


@pytest.mark.parametrize("same", [True, False], ids=["same process", "id used again"])
def test_only_the_process_that_was_left_over_is_ended(
    tmp_path: Path, taken_port: int, caplog: pytest.LogCaptureFixture, same: bool
) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    with psutil.Popen([sys.executable, "-c", code]) as parent:
        try:
            while not parent.children():
                time.sleep(0.05)
            (child,) = parent.children()
            entry = {"pid": parent.pid, "create_time": parent.create_time() + (not same), "port": 1}
            dead = {"launcher_pid": 2**22 + 1, "launcher_create_time": 1.0}
            (tmp_path / "serving.json").write_text(json.dumps(entry | dead))
            with pytest.raises(UserError, match="port"):
                ServedModel(smol(tmp_path, tmp_path, model_version="v1", port=taken_port)).__enter__()
            assert len(caplog.messages) == same
            assert parent.is_running() != same
            assert child.is_running() != same
        finally:
            for process in (child, parent):
                if process.is_running():
                    process.kill()


@pytest.mark.slow
def test_no_service_outlives_its_launcher(model_folder: Path, tmp_path: Path) -> None:
    def launch(port: int) -> tuple[subprocess.Popen[str], str, list[psutil.Process]]:
        command = [sys.executable, "-c", LAUNCHER, str(model_folder), str(tmp_path), str(port)]
        launcher = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert launcher.stdout is not None
        url = launcher.stdout.readline().strip()
        service = psutil.Process(json.loads((tmp_path / "serving.json").read_text())["pid"])
        return launcher, url, [service, *service.children(recursive=True)]

    first, url, family = launch(0)
    assert len(family) > 1
    first.kill()
    first.wait()
    assert (tmp_path / "serving.json").exists()
    second, again, new_family = launch(int(url.split(":")[2].partition("/")[0]))
    assert again == url
    assert not any(process.is_running() for process in family)
    assert httpx.get(f"{url.removesuffix('/v1')}/readyz", trust_env=False).status_code == 200

    second.send_signal(signal.SIGTERM)
    assert second.wait(30) == 128 + signal.SIGTERM
    assert not any(process.is_running() for process in new_family)
    assert not (tmp_path / "serving.json").exists()

    third, url, family = launch(0)
    third.kill()
    third.wait()
    assert psutil.wait_procs(family, timeout=20)[1] == []
