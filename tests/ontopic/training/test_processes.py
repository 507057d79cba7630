from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ontopic.config.training_settings import TrainingSettings
from ontopic.training.processes import train_in_processes

# Stands in for the interpreter: says how it was started, as the process's metrics.
INTERPRETER = """#!{python}
import json, os, time
time.sleep(0.2)  # the launcher sets the priority once it runs
said = {{"niceness": os.getpriority(os.PRIO_PROCESS, 0), "threads": int(os.environ["OMP_NUM_THREADS"])}}
said["passive"] = os.environ.get("OMP_WAIT_POLICY") == "PASSIVE"
print("metrics " + json.dumps([said, 1]))
print("metrics " + json.dumps([{{"adapter": "adapter", "steps": 1, "resumed_from": 0, "metrics": {{}}}}, None]))
"""


@pytest.mark.parametrize("threads", [0, 1])
def test_a_training_that_was_told_its_threads_gives_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, threads: int
) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_text(INTERPRETER.format(python=sys.executable))
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    settings = TrainingSettings(
        beta=1.0, learning_rate=1e-3, epochs=1, batch_size=2, max_rejected_tokens=4, save_steps=1, threads=threads
    )
    assert settings.apart == bool(threads)
    logged: list[dict[str, float]] = []
    train_in_processes(
        tmp_path, "float32", preferences=[], settings=settings, work=tmp_path, log_metrics=lambda m, _: logged.append(m)
    )
    own = os.getpriority(os.PRIO_PROCESS, 0)
    lowered = {"niceness": min(19, own + 10), "threads": 1, "passive": True}
    assert logged[0] == (lowered if threads else {"niceness": own, "threads": 7, "passive": False})
