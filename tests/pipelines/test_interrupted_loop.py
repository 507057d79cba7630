"""The loop, killed and stopped with Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import psutil
import pytest
from loops import LENIENT, NAME, ROOT, assert_nothing_is_half_done, environment, kill_when, new_state, run, write_config


@pytest.mark.slow
def test_killed_again_and_again_the_loop_still_comes_to_its_end(model_folder: Path, tmp_path: Path) -> None:
    """Killed 4, 8, 12, ... seconds after its start until a run is through; then the promotion has happened once."""
    config, state = write_config(tmp_path, LENIENT), new_state(tmp_path, model_folder)
    kills = 0
    for seconds in range(4, 200, 4):
        end = time.monotonic() + seconds
        if not kill_when(state, config, tmp_path / "log", lambda end=end: time.monotonic() > end):
            break
        kills += 1
    assert kills >= 3
    after = run(state, config=config)
    assert after.code == 0, after.err
    assert_nothing_is_half_done(state)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{state}/mlflow.db")
    champion = client.get_model_version_by_alias(NAME, "champion")
    assert champion.tags["ontopic.gate"] == "passed"
    digests = [v.tags["ontopic.digest"] for v in client.search_model_versions(f"name = '{NAME}'")]
    assert len(digests) == len(set(digests))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_ends_the_served_model_too_and_says_so(
    number: signal.Signals, model_folder: Path, tmp_path: Path
) -> None:
    config, state = write_config(tmp_path, LENIENT), new_state(tmp_path, model_folder)
    command = [sys.executable, str(ROOT / "run.py"), "--config", str(config), "--state", str(state)]
    with (tmp_path / "log").open("w") as file:
        loop = subprocess.Popen(
            command,
            stdout=file,
            stderr=file,
            env=environment(),
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
        )
        while not (state / "loop" / "serving.json").exists():
            assert loop.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        served = json.loads((state / "loop" / "serving.json").read_text())["pid"]
        if number is signal.SIGINT:
            os.killpg(loop.pid, number)
        else:  # from a service manager, or as the terminal is closed: to the loop alone
            loop.send_signal(number)
        assert loop.wait(60) == 128 + number
    said = (tmp_path / "log").read_text()
    assert said.endswith("stopped; the next run goes on from here\n") and "Traceback" not in said
    assert not psutil.pid_exists(served)
    assert not (state / "loop" / "serving.json").exists()
