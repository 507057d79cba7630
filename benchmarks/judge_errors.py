"""How often a challenger is promoted that the judge flatters, by the judge alone and with labels of 60 pairs of a kind.

python benchmarks/judge_errors.py [--runs 2000] [--figure docs/figures/judge_errors.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from ontopic.statistics.rates import Z95
from ontopic.statistics.two_phase import LabelledPairs, true_difference

ROOT = Path(__file__).resolve().parents[1]
N = 450
PAIRS = 60
TRUTHS = np.array([(True, True), (True, False), (False, True), (False, False)])  # champion, challenger
EQUAL = (0.85, 0.05, 0.05, 0.05)  # both right on 0.90; questions are hard for both
APART = (0.81, 0.09, 0.09, 0.01)  # the same, each failing on its own questions
BETTER = (0.825, 0.025, 0.075, 0.075)  # 0.85 against 0.90
MUCH_BETTER = (0.80, 0.02, 0.12, 0.06)  # 0.82 against 0.92


class Case(NamedTuple):
    """Two models, and a judge's errors on each."""

    name: str
    truth: tuple[float, float, float, float]
    sensitivity: float
    specificity: tuple[float, float]


CASES = (
    *(Case("equal", EQUAL, 0.95, (0.9, s)) for s in (0.9, 0.8, 0.7, 0.6)),
    *(Case("equal, no good answer failed", EQUAL, 1.0, (0.9, s)) for s in (0.9, 0.6)),
    *(Case("equal, fail on other questions", APART, 0.95, (0.9, s)) for s in (0.9, 0.6)),
    Case("+0.05", BETTER, 0.95, (0.9, 0.9)),
    Case("+0.05, a better judge", BETTER, 0.98, (0.95, 0.95)),
    Case("+0.05, flattered", BETTER, 0.95, (0.9, 0.6)),
    Case("+0.10", MUCH_BETTER, 0.95, (0.9, 0.9)),
)


class Found(NamedTuple):
    """Shares of runs.

    Attributes:
        judge: promoted by the improvement that the judge sees.
        corrected: promoted where the corrected improvement must be shown as well.
        promoted: promoted where, besides, the judge's errors must not differ while pairs are left to label.
        differ: found to differ.
        covered: the interval of the corrected improvement holds the true one.
        above: its lower bound lies above the true one.
    """

    judge: float
    corrected: float
    promoted: float
    differ: float
    covered: float
    above: float


def simulated(case: Case, *, runs: int, discordant: int = PAIRS, agreeing: int = PAIRS) -> Found:
    """Gates of one kind, with so many pairs labelled of those with different verdicts and of those with the same."""
    random = np.random.default_rng(0)
    true_improvement = case.truth[2] - case.truth[1]
    rows = []
    for _ in range(runs):
        true = TRUTHS[random.choice(4, N, p=case.truth)]
        right = random.random((N, 2)) < np.where(true, case.sensitivity, np.array(case.specificity))
        said = np.where(right, true, ~true)
        wins, losses = said[:, 1] & ~said[:, 0], said[:, 0] & ~said[:, 1]
        won, lost = int(wins.sum()), int(losses.sum())
        chosen = np.concatenate(
            [
                random.permutation(np.flatnonzero(wins | losses))[:discordant],
                random.permutation(np.flatnonzero(~(wins | losses)))[:agreeing],
            ]
        )
        found = true_difference(
            LabelledPairs(verdicts=said[chosen], labels=true[chosen]),
            wins=won,
            losses=lost,
            agreeing=N - won - lost,
        )
        improvement, differ = found.improvement, found.differ
        judge = won - lost > Z95 * np.sqrt(won + lost)  # where Tango's lower bound is above 0
        corrected = judge and improvement.low > 0
        promoted = corrected and not (differ and won + lost > discordant)
        covered = improvement.low <= true_improvement <= improvement.high
        rows.append((judge, corrected, promoted, differ, covered, improvement.low > true_improvement))
    return Found(*np.mean(rows, axis=0))


def main() -> None:
    """Print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "figures" / "judge_errors.png")
    options = parser.parse_args()
    print(f"{N} questions, {PAIRS} pairs with the same verdict labelled, {options.runs:,} runs a row")
    print(
        "challenger | sensitivity | specificity on champion, challenger | discordant labelled | promoted by the judge "
        "alone | + corrected improvement | + errors do not differ | found to differ | coverage | lower bound above"
    )
    shown = {}
    for case in CASES:
        for discordant, name in ((PAIRS, str(PAIRS)), (N, "all")):
            found = simulated(case, runs=options.runs, discordant=discordant)
            shares = " | ".join(f"{share:.1%}" for share in found)
            print(f"{case.name} | {case.sensitivity} | {case.specificity} | {name} | {shares}", flush=True)
            if discordant == PAIRS:
                shown[case] = found
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    plot, axis = plt.subplots(figsize=(8, 4.2))
    rows = np.arange(len(shown))
    axis.barh(rows - 0.2, [100 * f.judge for f in shown.values()], 0.38, color="#c2452d", label="by the judge alone")
    axis.barh(
        rows + 0.2,
        [100 * f.promoted for f in shown.values()],
        0.38,
        color="#14583f",
        label="with 60 + 60 pairs labelled",
    )
    axis.axvline(5, color="#6b6b6b", linestyle="--", linewidth=1)
    names = [f"{c.name}; specificity {c.specificity[0]} and {c.specificity[1]}" for c in shown]
    axis.set_yticks(rows, names)
    axis.invert_yaxis()
    axis.set_xlabel("promoted, % of runs (dashed: 5 %, the most for an equal challenger)")
    axis.legend(frameon=False)
    plot.tight_layout()
    plot.savefig(options.figure, dpi=120)
    print(f"the figure is in {options.figure}")


if __name__ == "__main__":
    main()
