"""How often 95 % intervals of the guardrail score hold the true rate: raw, Lee et al.'s, and ours.

python benchmarks/coverage.py [--figure docs/figures/coverage.png]
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, qmc

from ontopic.statistics.correction import compatible
from ontopic.statistics.rates import Z95

ROOT = Path(__file__).resolve().parents[1]
# Quasi-random outcomes: at 8,192 a coverage is good to about 0.1 %.
OUTCOMES = qmc.Sobol(3, seed=1).random_base2(13)
TRUTHS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98)
SHARES = (0.7, 0.8, 0.9, 0.95, 0.99)
RECORDS = (50, 100, 200, 500, 1000)
LABELS = ((50, 50), (100, 100), (200, 200), (500, 500), (500, 50), (50, 500))  # labelled pass, labelled fail
NAMES = ("raw (Wilson)", "Lee et al.", "ours")


def coverages(
    truth: float, *, sensitivity: float, specificity: float, n: int, passes: int, fails: int
) -> tuple[float, float, float]:
    """Coverage of the raw, Lee et al.'s and our interval, for judges and samples of one kind."""
    x = binom.ppf(OUTCOMES[:, 0], n, truth * sensitivity + (1 - truth) * (1 - specificity))
    a, b = binom.ppf(OUTCOMES[:, 1], passes, sensitivity), binom.ppf(OUTCOMES[:, 2], fails, specificity)
    half = Z95 / (n + Z95**2) * np.sqrt(x * (n - x) / n + Z95**2 / 4)
    raw = np.abs((x + Z95**2 / 2) / (n + Z95**2) - truth) <= half
    low, high = _lee((x, n), sensitivity=(a, passes), specificity=(b, fails))
    ours = compatible(truth, (x, n), sensitivity=(a, passes), specificity=(b, fails))
    return float(raw.mean()), float(((low <= truth) & (truth <= high)).mean()), float(ours.mean())


Counts = tuple[NDArray[np.float64], int]  # successes in each outcome, and of how many


def _lee(
    passed: Counts, *, sensitivity: Counts, specificity: Counts
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The adjusted interval of Lee et al. (arXiv 2511.21140), which is Lang and Reiczigel's (2014)."""
    (x, n), (a, passes), (b, fails) = passed, sensitivity, specificity
    records, m1, m0 = n + Z95**2, passes + 2, fails + 2
    p, q1, q0 = (x + Z95**2 / 2) / records, (a + 1) / m1, (b + 1) / m0
    youden = np.where(q1 + q0 > 1, q1 + q0 - 1, np.nan)
    centre = (p + q0 - 1) / youden
    shift = 2 * Z95**2 * (centre * q1 * (1 - q1) / m1 - (1 - centre) * q0 * (1 - q0) / m0)
    variance = p * (1 - p) / records + (1 - centre) ** 2 * q0 * (1 - q0) / m0 + centre**2 * q1 * (1 - q1) / m1
    error = Z95 / youden * np.sqrt(variance)
    # No better than chance: the interval is [0, 1].
    return np.nan_to_num(centre + shift - error, nan=0.0), np.nan_to_num(centre + shift + error, nan=1.0)


def table() -> None:
    """Print coverages over the grid; apart, the corner where so few fails are expected that counts are coarse."""
    rows = []
    for truth, sensitivity, specificity, n, (passes, fails) in itertools.product(
        TRUTHS, SHARES, SHARES, RECORDS, LABELS
    ):
        failing = 1 - truth * sensitivity - (1 - truth) * (1 - specificity)
        expected = min(n * failing, passes * (1 - sensitivity))
        judge = {"sensitivity": sensitivity, "specificity": specificity}
        rows.append((expected, *coverages(truth, **judge, n=n, passes=passes, fails=fails)))
    cells = np.array(rows)
    coarse = cells[:, 0] < 3 - 1e-9
    for name, chosen in (("three or more expected fails", ~coarse), ("fewer", coarse)):
        print(f"{name}: {chosen.sum()} cells")
        for column, kind in enumerate(NAMES, start=1):
            c = cells[chosen, column]
            inside = np.mean((c >= 0.93) & (c <= 0.97))
            print(
                f"  {kind:<13} min {c.min():.3f}  1 % {np.quantile(c, 0.01):.3f}  median {np.median(c):.3f}  "
                f"99 % {np.quantile(c, 0.99):.3f}  max {c.max():.3f}  within 93-97 %: {inside:.1%}"
            )


def figure(path: Path) -> None:
    """Draw coverage by true rate for three judges: at full height, and the corrected ones close up on few labels."""
    judges = ((0.8, 0.8), (0.9, 0.95), (0.95, 0.85))
    views = (((1000, 200, 200), (0, 101), (0, 25, 50, 75, 95)), ((100, 50, 50), (90, 100), (90, 93, 95, 97, 100)))
    truths = np.r_[np.arange(0.5, 0.95, 0.01), np.arange(0.95, 0.9825, 0.005)]
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    plot, axes = plt.subplots(len(views), len(judges), figsize=(10, 5.8), sharex=True, sharey="row")
    styles = (
        {"color": "#c2452d", "linewidth": 1.6, "label": "raw rate, Wilson's interval"},
        {"color": "#6b6b6b", "linewidth": 1.4, "linestyle": "--", "label": "corrected, Lee et al.'s interval"},
        {"color": "#14583f", "linewidth": 2.0, "label": "corrected, this project's interval"},
    )
    for ((n, passes, fails), limits, ticks), row in zip(views, axes, strict=True):
        for (sensitivity, specificity), axis in zip(judges, row, strict=True):
            judge = {"sensitivity": sensitivity, "specificity": specificity}
            lines = np.array([coverages(t, **judge, n=n, passes=passes, fails=fails) for t in truths])
            axis.axhspan(93, 97, color="#14583f", alpha=0.13, linewidth=0, label="93 to 97 %")
            for line, style in zip(lines.T, styles, strict=True):
                axis.plot(truths, 100 * line, **style)
            axis.set_title(
                f"sensitivity {sensitivity}, specificity {specificity}\n{n:,} records, {passes} + {fails} labels",
                fontsize=9,
            )
            axis.set_xlim(0.5, 0.985)
            axis.set_ylim(*limits)
            axis.set_yticks(ticks)
    for axis in axes[-1]:
        axis.set_xlabel("true rate")
    axes[0, 0].set_ylabel("coverage, %")
    axes[1, 0].set_ylabel("coverage, %, close up")
    handles, names = axes[0, 0].get_legend_handles_labels()
    plot.legend(handles, names, loc="lower center", ncol=4, frameon=False)
    plot.tight_layout(rect=(0, 0.05, 1, 1))
    plot.savefig(path, dpi=120)


def main() -> None:
    """Print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "figures" / "coverage.png")
    options = parser.parse_args()
    table()
    figure(options.figure)
    print(f"the figure is in {options.figure}")


if __name__ == "__main__":
    main()
