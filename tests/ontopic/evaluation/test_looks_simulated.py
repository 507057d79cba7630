"""A cut of benchmarks/gate_looks.py: equals are hardly ever promoted over 60 loops, and who is better still is."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest
from loopback import ROOT


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gate_looks", ROOT / "benchmarks" / "gate_looks.py")
    assert spec is not None and spec.loader is not None
    sys.modules["gate_looks"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rule(bench: ModuleType, name: str) -> object:
    (found,) = [each for each in bench.RULES if each.name == name]
    return found


def test_over_60_loops_of_equals_any_is_promoted_in_five_runs_of_a_hundred_at_most(bench: ModuleType) -> None:
    spent, same = (
        bench.simulate(rule(bench, name), bench.World(), runs=250).false[-1] for name in ("spent", "same questions")
    )
    assert spent <= 0.05 + 2 * (0.05 * 0.95 / 250) ** 0.5 < 0.2 < same


def test_who_is_better_is_found_at_the_first_gate_as_often_as_before(bench: ModuleType) -> None:
    better = bench.World(mean=0.02, loops=1)
    ours, before = (
        bench.simulate(rule(bench, name), better, runs=1500).found for name in ("spent, rehearsed", "same questions")
    )
    assert ours > before - 0.02 > 0.2
