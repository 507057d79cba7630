"""How often the lower bound of Cohen's kappa lies above the truth: Cohen's interval of 1960 and the score interval.

python benchmarks/kappa.py [--figure docs/figures/kappa.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from ontopic.statistics.agreement import compatible_kappa
from ontopic.statistics.rates import Z95

ROOT = Path(__file__).resolve().parents[1]
RUNS = 100_000
Table = NDArray[np.float64]
# Labelled pass, labelled fail, sensitivity, specificity.
CASES = (
    ("default card, 818", 509, 309, 0.933, 0.909),
    ("52 labels", 32, 20, 0.90, 0.90),
    ("52 labels", 32, 20, 0.95, 0.90),
    ("52 labels", 32, 20, 0.97, 0.95),
    ("52 labels", 32, 20, 0.98, 0.85),
    ("60, nearly perfect", 36, 24, 0.98, 0.98),
    ("60, nearly perfect", 36, 24, 0.99, 0.99),
    ("60, nearly perfect", 36, 24, 0.995, 0.97),
    ("100 balanced", 50, 50, 0.80, 0.90),
    ("100 balanced", 50, 50, 0.90, 0.90),
    ("100 balanced", 50, 50, 0.95, 0.95),
    ("591 of real traffic", 567, 24, 0.982, 0.333),
    ("20 balanced", 10, 10, 0.90, 0.90),
)


def kappas(tables: Table) -> tuple[Table, Table]:
    """Kappa of each table of shape (n, 4), and Cohen's standard error of it."""
    n = tables.sum(-1)
    labelled, said = (tables[:, 0] + tables[:, 1]) / n, (tables[:, 0] + tables[:, 2]) / n
    chance = labelled * said + (1 - labelled) * (1 - said)
    agreed = (tables[:, 0] + tables[:, 3]) / n
    with np.errstate(divide="ignore", invalid="ignore"):
        return (agreed - chance) / (1 - chance), np.sqrt(agreed * (1 - agreed) / n) / (1 - chance)


def outside(
    passes: int, fails: int, *, sensitivity: float, specificity: float, drawn: bool
) -> tuple[float, float, float, float]:
    """How often the truth is below Cohen's interval and above it, below the score interval and above it.

    Args:
        drawn: whether the records are drawn at random; else so many of each label are taken.
    """
    random, n = np.random.default_rng(0), passes + fails
    cells = [passes * sensitivity, passes * (1 - sensitivity), fails * (1 - specificity), fails * specificity]
    true = float(kappas(np.array([cells]))[0][0])
    if drawn:
        tables = random.multinomial(n, np.array(cells) / n, size=RUNS)
    else:
        right, caught = random.binomial(passes, sensitivity, RUNS), random.binomial(fails, specificity, RUNS)
        tables = np.stack([right, passes - right, fails - caught, caught], -1)
    tables, times = np.unique(tables, axis=0, return_counts=True)
    share = times / RUNS
    value, error = kappas(tables.astype(float))
    rejected = ~compatible_kappa(true, tables)
    ends = (
        value - Z95 * error > true,
        value + Z95 * error < true,
        rejected & (value > true),
        rejected & ~(value > true),
    )
    below, above, score_below, score_above = (float(share[end].sum()) for end in ends)
    return below, above, score_below, score_above


def main() -> None:
    """Print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "figures" / "kappa.png")
    figure = parser.parse_args().figure
    print(f"How often the truth lies below the interval and above it, {RUNS:,} runs a row; 2.5 % each are wanted")
    print("labels | sensitivity | specificity | labels' mix | Cohen 1960: below, above | score: below, above")
    worst: dict[str, tuple[float, float]] = {}
    for name, passes, fails, sensitivity, specificity in CASES:
        for drawn in (False, True):
            found = outside(passes, fails, sensitivity=sensitivity, specificity=specificity, drawn=drawn)
            shown = [f"{share:.1%}" for share in found]
            mix = "drawn" if drawn else "fixed"
            print(
                f"{name} | {sensitivity} | {specificity} | {mix} | {', '.join(shown[:2])} | {', '.join(shown[2:])}",
                flush=True,
            )
            before = worst.get(name, (0.0, 0.0))
            worst[name] = max(before[0], found[0]), max(before[1], found[2])
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    plot, axis = plt.subplots(figsize=(8, 3.4))
    rows = np.arange(len(worst))
    axis.barh(rows - 0.2, [100 * both[0] for both in worst.values()], 0.38, color="#c2452d", label="Cohen 1960")
    axis.barh(rows + 0.2, [100 * both[1] for both in worst.values()], 0.38, color="#14583f", label="score interval")
    axis.axvline(2.5, color="#6b6b6b", linestyle="--", linewidth=1)
    axis.set_yticks(rows, list(worst))
    axis.invert_yaxis()
    axis.set_xlabel("runs in which the lower bound is above the true kappa, %, worst of its rows (2.5 is wanted)")
    axis.legend(frameon=False)
    plot.tight_layout()
    plot.savefig(figure, dpi=120)
    print(f"the figure is in {figure}")


if __name__ == "__main__":
    main()
