"""False flags and power of topic drift, by simulation through the function that monitoring calls.

Windows draw their questions' topics at random; the reference is drawn too. `python benchmarks/drift.py` prints for each
size how many windows, and how many months, are flagged without any drift, beside the one-sample test that takes the
reference's shares for known; and how soon a topic that gains 15 points is found. It draws docs/figures/drift.png.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import chisquare

from ontopic.monitoring.drift import LEAST_DISTANCE, POOLED, REFERENCE, Past, topic_drift
from ontopic.monitoring.window import Drift

ROOT = Path(__file__).resolve().parents[1]
SHARES = np.array([0.2, 0.15, 0.12, 0.1, 0.09, 0.08, 0.07, 0.06, 0.05, 0.035, 0.02, 0.015, 0.01])
NAMES = [f"topic {i}" for i in range(len(SHARES))]
CADENCES = ((720, 20), (300, 100), (30, 120), (30, 1000), (30, 5000))
SHIFTED = (0, 2, 5, 8, 11)  # topics that gain 15 points, from 20 % of the questions to 1.5 %


class _Named:
    """Topics of questions that are topics' names."""

    id = "named"

    def of(self, questions: list[str]) -> list[str]:
        return questions


def drawn(chance: np.random.Generator, n: int, shares: np.ndarray = SHARES) -> list[str]:
    return [NAMES[i] for i in chance.choice(len(NAMES), n, p=shares)]


def month(chance: np.random.Generator, size: int, windows: int, shifted: np.ndarray | None = None) -> Iterator[Drift]:
    """What is said of each window after the first healthy ones.

    Args:
        shifted: the topics' shares from the first window after the reference on; where not given, nothing changes.
    """
    nothing = Drift(score=math.nan, detected=False, grown=[], topics="named")
    enough = math.ceil(REFERENCE / size)
    reference = [nothing.model_copy(update={"counts": Counter(drawn(chance, size))}) for _ in range(enough)]
    healthy = math.ceil(POOLED / size) if shifted is not None else 0  # windows in between
    earlier = [nothing.model_copy(update={"counts": Counter(drawn(chance, size))}) for _ in range(healthy)]
    for _ in range(windows):
        questions = drawn(chance, size, SHARES if shifted is None else shifted)
        past = Past(reference, earlier[: math.ceil(POOLED / size)], timedelta(days=30 / max(windows, 30)))
        drift = topic_drift(questions, _Named(), past=past)  # type: ignore[arg-type]
        if drift is None:
            raise RuntimeError("a window without questions")
        earlier.insert(0, drift)
        yield drift


def one_sample(chance: np.random.Generator, size: int, runs: int) -> float:
    """How many windows the test flags at 1 % that takes the shares of the calibration set's 447 questions for known."""
    flagged = 0
    for _ in range(runs):
        before, now = (chance.multinomial(n, SHARES) for n in (447, size))
        known = before > 0
        flagged += chisquare(now[known], before[known] / before[known].sum() * now[known].sum()).pvalue < 0.01
    return flagged / runs


def main() -> None:
    """Print the tables and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "figures" / "drift.png")
    options = parser.parse_args()
    started, chance = time.perf_counter(), np.random.default_rng(0)
    print("nothing changes: windows and months with a flag; the one-sample test at 1 %, windows")
    sizes, ours, theirs = [], [], []
    for windows, size in CADENCES:
        months = [list(month(chance, size, windows)) for _ in range(max(20, 9000 // windows))]
        each = [drift.detected for drifts in months for drift in drifts]
        once = np.mean([any(drift.detected for drift in drifts) for drifts in months])
        known = one_sample(chance, size, 2000)
        sizes, ours, theirs = [*sizes, size], [*ours, np.mean(each)], [*theirs, known]
        print(
            f"  {windows:3} windows of {size:5,}: {np.mean(each):.4f} of {len(each):,} windows, {once:.3f} of "
            f"{len(months):,} months; one-sample {known:.3f}",
            flush=True,
        )
    print("a topic gains 15 points: found by the first, second, third window of 120, of 300 runs")
    for topic in SHIFTED:
        shares = SHARES * (1 - 0.15 / (1 - SHARES[topic]))
        shares[topic] = SHARES[topic] + 0.15
        found = np.array([[drift.detected for drift in _three(chance, shares)] for _ in range(300)])
        by = np.maximum.accumulate(found, axis=1).mean(axis=0)
        print(f"  from {SHARES[topic]:.1%}: " + ", ".join(f"{share:.3f}" for share in by), flush=True)
    _draw(sizes, ours, theirs, options.figure)
    print(f"{time.perf_counter() - started:.0f} s; flagged only at a distance of {LEAST_DISTANCE:g} or more")


def _three(chance: np.random.Generator, shares: np.ndarray) -> list[Drift]:
    of_the_month = month(chance, 120, 30, shares)
    return [next(of_the_month) for _ in range(3)]


def _draw(sizes: list[int], ours: list[float], theirs: list[float], path: Path) -> None:
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    plot, axis = plt.subplots(figsize=(6, 3.4))
    axis.plot(sizes, 100 * np.array(theirs), color="#c2452d", marker="o", label="reference taken for known, at 1 %")
    axis.plot(sizes, 100 * np.array(ours), color="#14583f", marker="o", label="two samples and a distance")
    axis.axhline(1.5, color="#6b6b6b", linewidth=1, linestyle=":", label="1.5 %")
    axis.set_xscale("log")
    axis.set_xticks(sizes, [f"{size:,}" if size != 100 else "" for size in sizes])  # too close to 120
    axis.minorticks_off()
    axis.set_xlabel("questions a window")
    axis.set_ylabel("windows flagged without drift, %")
    axis.legend(frameon=False)
    plot.tight_layout()
    plot.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
