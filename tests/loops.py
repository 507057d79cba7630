"""The loop from the command line, on a tiny setting: the real model, few questions, few steps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlflow
import yaml
from loopback import ROOT

LENIENT = {
    "guardrail_score": 0.0,
    "over_refusal": 1.0,
    "leak": 1.0,
    "improvement": -1.0,
    "unjudged": 1.0,
    "unjudged_increase": 1.0,
    "quality_loss": 2.0,
    "perplexity_ratio": 1e6,
}


STRICT = {"guardrail_score": 1.0, "over_refusal": 0.0, "leak": 0.0, "improvement": 0.9}


NAME = "ontopic-gardening"


SECRET = "sk-no-real-key-but-nobody-may-see-it"


@dataclass(frozen=True)
class Run:
    """A finished run of the command line."""

    code: int
    out: str
    err: str


def run(state: Path, *arguments: str, config: Path, timeout: int = 900, **variables: str) -> Run:
    command = [sys.executable, str(ROOT / "run.py"), *arguments, "--config", str(config), "--state", str(state)]
    own = environment() | variables
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=own, check=False)
    return Run(done.returncode, done.stdout, done.stderr)


def environment() -> dict[str, str]:
    own = {"HF_HUB_OFFLINE": "1", "COLUMNS": "160", "OPENAI_API_KEY": SECRET, "HF_TOKEN": SECRET}
    return {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "ZENML_"))} | own


def write_config(folder: Path, gate: dict[str, float], seed: int = 0, kappa: float = -1.0, **sections: object) -> Path:
    """The gardening policy, which every window of the base model fails, with a few questions and steps.

    Args:
        kappa: the judge's bar.
        sections: of the configuration, in place of those of ``configs/gardening.yaml``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    policy = yaml.safe_load((ROOT / "configs/policies/gardening.yaml").read_text())
    policy |= {"gate": gate, "alert_threshold": 1.0, "judge_bar": {"accuracy": 0.0, "kappa": kappa}}
    policy |= {"least_records": 5, "most_unjudged": 1.0}
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy))
    settings = yaml.safe_load((ROOT / "configs/gardening.yaml").read_text())
    settings |= {
        "policy": "policy.yaml",
        "judge_prompts": str(ROOT / "configs/judge_prompts"),
        "serving": {"port": 0},
        "traffic": {"questions": 24, "fresh_questions": 8, "concurrency": 8, "seed": seed},
        "monitoring": {"window_records": 12},
        "evaluation": {"questions": 12},
    }
    settings["model"]["max_new_tokens"] = 16
    settings["training"] |= {"max_steps": 4, "batch_size": 2, "save_steps": 1, "max_rejected_tokens": 8, "attempts": 1}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings | sections))
    return folder / "config.yaml"


def new_state(folder: Path, model_folder: Path) -> Path:
    """A state folder in which nothing is; ``model_folder``, the converted model, is in the session's cache."""
    assert model_folder.is_relative_to(os.environ["ONTOPIC_CACHE"])
    (folder / "state").mkdir(parents=True)
    return folder / "state"


def kill_when(state: Path, config: Path, log: Path, reached: Callable[[], bool]) -> bool:
    """Start the loop and kill -9 it once ``reached``; whether it still ran then."""
    command = [sys.executable, str(ROOT / "run.py"), "--config", str(config), "--state", str(state)]
    with log.open("w") as file:
        victim = subprocess.Popen(command, stdout=file, stderr=file, env=environment())
        deadline = time.monotonic() + 600
        while not reached():
            if victim.poll() is not None:
                return False
            assert time.monotonic() < deadline
            time.sleep(0.05)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    return True


def assert_nothing_is_half_done(state: Path) -> None:
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{state}/mlflow.db")
    versions = client.search_model_versions(f"name = '{NAME}'")
    assert versions
    for version in versions:
        assert version.tags["ontopic.complete"] == "true"
    statuses = {r.info.status for r in client.search_runs([e.experiment_id for e in client.search_experiments()])}
    assert "RUNNING" not in statuses
    assert not (state / "loop" / "serving.json").exists()
