"""From nothing to the loop's end: 60 questions and 30 records of one's own, and no LLM."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from loops import ROOT, STRICT, Run, environment, new_state, run, write_config

from ontopic.registry.promotion_record import PromotionRecord

NAME = "library-desk"
SAID = """What people ask at the desk of a public library.


\nlost my card
Tell the desk, so that we block it.
It helps.
what is 12 squared
144
A sum.
n
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The new policy's configuration, made after one with few steps."""
    folder = tmp_path_factory.mktemp("cold")
    command = [sys.executable, str(ROOT / "run.py"), "policy", "new", NAME, "--subject", "library desk"]
    command += ["--config", str(write_config(folder / "like", STRICT)), "--into", str(folder / "configs")]
    command += [f"--{name}={ROOT / 'docs' / 'library' / name}.csv" for name in ("questions", "records")]
    done = subprocess.run(command, input=SAID, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    return folder / "configs" / f"{NAME}.yaml"


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    return new_state(tmp_path_factory.mktemp("state"), model_folder)


def assert_nothing_is_promoted(done: Run, state: Path) -> None:
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    entries = PromotionRecord(state / "promotions.jsonl").entries(f"ontopic-{NAME}")
    assert [entry.version for entry in entries if entry.kind == "promotion"] == ["1"]
    assert "is the champion now" not in done.out
    assert "uncorrected: the judge's error on this traffic is unknown" in done.out


@pytest.mark.slow
def test_the_loop_runs_to_its_end_and_promotes_nothing(config: Path, state: Path) -> None:
    done = run(state, config=config)
    assert_nothing_is_promoted(done, state)
    undecided = "Nothing was trained or promoted: judge local-" in done.out
    assert undecided or "stays a challenger, and version 1 the champion" in done.out


@pytest.mark.slow
@pytest.mark.parametrize("bar", [1.0, 0.0], ids=["a judge under the bar", "any judge"])
def test_whatever_the_judge_is_worth_the_loop_runs_to_its_end(config: Path, state: Path, bar: float) -> None:
    path = config.parent / "policies" / f"{NAME}.yaml"
    policy = yaml.safe_load(path.read_text(encoding="utf-8"))
    policy["judge_bar"] = {"accuracy": bar, "kappa": 2 * bar - 1}
    path.write_text(yaml.safe_dump(policy), encoding="utf-8")
    done = run(state, config=config)
    assert_nothing_is_promoted(done, state)
    if bar:
        assert "may not gate: its accuracy is" in done.out and "Alert:" not in done.out
        return
    assert "Alert:" in done.out
    assert "The gate asks 14 questions" in done.out
    assert "No challenger can pass so: add questions of the evaluation split, or ease the limits" in done.out
    assert re.search(r"Version [23] stays a challenger, and version 1 the champion", done.out)  # by the attempts
    labelled = run(state, "policy", "check", config=config)
    assert "the gate: too thin (7 questions in scope, 7 out of it" in labelled.out
