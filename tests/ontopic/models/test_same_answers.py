"""The embedded model answers the same, word for word, in other programs: what `benchmarks/same_answers.py` compares."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from loopback import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("side", ["gguf", "gguf-half", "openvino", "vllm", "service"])
def test_an_answer_is_the_same_in_another_program(side: str, model_folder: Path) -> None:
    needed = {"gguf": "xllamacpp", "gguf-half": "xllamacpp", "openvino": "openvino_genai"}.get(side)
    if needed and find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    script = [sys.executable, str(ROOT / "benchmarks" / "same_answers.py"), "--model", str(model_folder)]
    done = subprocess.run([*script, "--questions", "3", "--sides", side], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    _, _, share, difference, _ = done.stdout.splitlines()[-1].split("|")
    assert share.strip().startswith("1.000 "), done.stderr[-2000:]
    if "gguf" in side:
        assert float(difference.split()[0]) < 0.05
