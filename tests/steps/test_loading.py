"""What a run loads that takes every step from the cache: none of what the steps need when they run."""

from __future__ import annotations

import subprocess
import sys

from loopback import ROOT

HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "evidently", "sklearn", "openai", "bentoml", "bitsandbytes")
PIPELINES = ("pipelines.loop", "ontopic.monitoring.asked_traffic", "ontopic.evaluation.gate", "ontopic.evaluation.looks")


def test_pipelines_and_what_their_steps_return_load_nothing_heavy() -> None:
    code = f"import sys, {', '.join(PIPELINES)}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [], done.stdout
