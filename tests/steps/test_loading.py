"""What a run loads that takes every step from the cache: none of what the steps need when they run."""

from __future__ import annotations

import subprocess
import sys

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
