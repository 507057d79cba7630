"""What a run loads that takes every step from the cache: none of what the steps need when they run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from loopback import ROOT

HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "evidently", "sklearn", "openai", "bitsandbytes")
RESULTS = ("ontopic.monitoring.asked_traffic", "ontopic.evaluation.gate", "ontopic.evaluation.looks")


def test_pipelines_what_their_steps_return_and_what_is_checked_before_load_nothing_heavy() -> None:
    code = f"""
import sys, pipelines.loop, {", ".join(RESULTS)}
from pathlib import Path
from ontopic.commands.readiness import check_ready
from ontopic.config.settings import load_settings
check_ready(load_settings(Path("configs/local.yaml")))
from pipelines.stack import forget_unused_integrations
from zenml.integrations.registry import integration_registry
forget_unused_integrations()
integration_registry.activate_integrations()
print(*[name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [], done.stdout


def test_importing_the_steps_opens_no_database_of_zenml(tmp_path: Path) -> None:
    """Else it were the user's, in their home folder, and the state folder had none."""
    names = sorted(f"steps.{path.stem}" for path in (ROOT / "steps").glob("[!_]*.py"))
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", f"import {', '.join(names)}"], check=True, env=variables, cwd=tmp_path)
    assert not list(tmp_path.rglob("zenml*"))
