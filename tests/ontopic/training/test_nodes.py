"""Several machines that train together: a launcher each, which meet at the first one's port."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from loopback import ROOT
from pydantic import ValidationError
from safetensors.torch import load_file
from whole_models import tiny_model
from zenml_server import free_port

from ontopic.config.training_settings import TrainingSettings
from ontopic.models.loading import load
from ontopic.training.orpo import train_orpo
from ontopic.training.preferences import Preference
from ontopic.training.processes import node_arguments, train_in_processes

COMMON = {"beta": 0.5, "learning_rate": 1e-3, "epochs": 1, "max_rejected_tokens": 4, "save_steps": 100}
PAIRS = [
    Preference(
        question=question,
        chosen="Open the app and tap Cards.",
        rejected="I can only help with banking.",
        in_scope=True,
        source="",
        record_id="",
    )
    for question in ("How do I block my card?", "What is an IBAN?", "How long does it take?", "Where is my PIN?")
]


def test_several_nodes_have_to_meet_somewhere() -> None:
    with pytest.raises(ValidationError, match="have to meet somewhere; give host:port of the first one"):
        TrainingSettings.model_validate(COMMON | {"batch_size": 2, "nodes": 2})
    with pytest.raises(ValidationError, match="rendezvous"):
        TrainingSettings.model_validate(COMMON | {"batch_size": 2, "nodes": 2, "rendezvous": "http://first:1"})


@pytest.mark.slow
def test_two_nodes_train_as_one_process(model_folder: Path, tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "tiny", model_folder)
    alone = TrainingSettings.model_validate(COMMON | {"batch_size": 4})
    together = TrainingSettings.model_validate(
        COMMON | {"batch_size": 2, "nodes": 2, "rendezvous": f"127.0.0.1:{free_port()}"}
    )
    one = train_orpo(load(folder, "float32"), folder, preferences=PAIRS * 4, settings=alone, work=tmp_path / "one")
    ended: list[int] = []

    def join() -> None:
        """What is run on the other machine."""
        while not (jobs := list((tmp_path / "two").glob("job-*/job.json"))):
            time.sleep(0.1)
        time.sleep(1)  # until it is written
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *node_arguments(together, jobs[0], rank=1)]
        ended.append(subprocess.run(command, env=environment, cwd=tmp_path, check=False).returncode)

    other = threading.Thread(target=join, daemon=True)
    other.start()
    logged: dict[int, float] = {}
    two = train_in_processes(
        folder,
        "float32",
        preferences=PAIRS * 4,
        settings=together,
        work=tmp_path / "two",
        log_metrics=lambda metrics, step: logged.update({step: metrics["loss"]} if "loss" in metrics else {}),
    )
    other.join(60)
    assert ended == [0]
    assert two.steps == one.steps == len(logged) == 4
    first, second = (load_file(result.adapter / "adapter_model.safetensors") for result in (one, two))
    for name, weights in first.items():
        torch.testing.assert_close(second[name], weights, atol=2e-4, rtol=0.05)
    assert not list((tmp_path / "two").glob("job-*"))
