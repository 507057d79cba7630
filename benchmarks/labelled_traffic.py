"""What labels of traffic are worth: coverage and width of the corrected score, false misfits, and clustered records.

python benchmarks/labelled_traffic.py [--figure docs/figures/labelled-traffic.png]
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom, binom, qmc

from ontopic.judges.cards.traffic_card import LEAST_LABELS
from ontopic.statistics.clusters import clustered_rate
from ontopic.statistics.correction import compatible, corrected
from ontopic.statistics.rates import Z95, Rate, rate

ROOT = Path(__file__).resolve().parents[1]
# Quasi-random outcomes: at 1,024 a coverage is good to about 0.4 %.
OUTCOMES = qmc.Sobol(4, seed=1).random_base2(10)
TRUTHS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
SENSITIVITIES, SPECIFICITIES = (0.6, 0.8, 0.9, 0.95, 0.99), (0.6, 0.8, 0.9, 0.99)
RECORDS, LABELS = (50, 200, 1000), (50, 100, 200, 600)
# What an independent audit measured for the Rogan-Gladen estimate and for the labels alone.
COMPARED = ((0.9, 0.95, 0.8, 300), (0.85, 0.933, 0.909, 300), (0.95, 0.98, 0.6, 300), (0.95, 0.98, 0.6, 600))
Counts = NDArray[np.float64]


def drawn(truth: float, judge: tuple[float, float], *, n: int, labels: int) -> tuple[Counts, Counts, Counts, Counts]:
    """Outcomes: passes of ``n`` unlabelled records, good ones of the labels, and those of each kind judged right."""
    sensitivity, specificity = judge
    x = binom.ppf(OUTCOMES[:, 0], n, truth * sensitivity + (1 - truth) * (1 - specificity))
    good = binom.ppf(OUTCOMES[:, 1], labels, truth)
    bad = labels - good
    a = np.where(good > 0, binom.ppf(OUTCOMES[:, 2], np.maximum(good, 1), sensitivity), 0)
    b = np.where(bad > 0, binom.ppf(OUTCOMES[:, 3], np.maximum(bad, 1), specificity), 0)
    return x, good, a, b


def coverage(truth: float, judge: tuple[float, float], *, n: int, labels: int) -> float:
    """How often the true rate is in the interval, with so many random labels of the same traffic."""
    x, good, a, b = drawn(truth, judge, n=n, labels=labels)
    kept = compatible(
        truth,
        (x, n),
        sensitivity=(a, good),
        specificity=(b, labels - good),
        labelled=(good, np.full_like(good, labels)),
    )
    return float(kept.mean())


def expected(truth: float, judge: tuple[float, float], *, labels: int) -> float:
    """The fewer of the bad records and of the judge's errors that are to be expected among the labels."""
    return labels * min(1 - truth, truth * (1 - judge[0]) + (1 - truth) * (1 - judge[1]))


def widths(truth: float, judge: tuple[float, float], *, n: int, labels: int, runs: int = 60) -> dict[str, float]:
    """Mean widths of the interval with the labels of the same traffic, with those of other traffic, and of the labels
    alone."""
    found = dict.fromkeys(("same traffic", "other traffic", "labels alone"), 0.0)
    for x, good, a, b in zip(
        *(each[:runs].astype(int) for each in drawn(truth, judge, n=n, labels=labels)), strict=True
    ):
        errors: dict[str, Any] = {"specificity": rate(int(b), int(labels - good))}
        raw, sensitivity, alone = rate(int(x), n), rate(int(a), int(good)), rate(int(good), labels)
        all_passes = int(x) + int(a) + int(labels - good - b)
        for name, share in (
            ("same traffic", corrected(raw, sensitivity, labelled=alone, **errors)),
            ("other traffic", corrected(rate(all_passes, n + labels), sensitivity, **errors)),
            ("labels alone", alone),
        ):
            found[name] += (share.high - share.low) / runs
    return found


def misfits(sensitivity: float, *, n: int, labels: int) -> float:
    """How often a card is said not to fit traffic that it is a card of, where all answers are good."""
    a = np.arange(labels + 1)
    chance = binom.pmf(a, labels, sensitivity)
    x = np.arange(n + 1)
    out = 0.0
    for card, weight in zip(a, chance, strict=True):
        if weight > 1e-6:
            tail = betabinom.sf(x - 1, n, card + 0.5, labels - card + 0.5)
            out += weight * binom.pmf(x[(tail < 0.01) & (x / n > card / labels)], n, sensitivity).sum()
    return float(out)


def clustered(truth: float, icc: float, *, runs: int, clusters: int = 24, size: int = 5) -> tuple[float, float]:
    """Coverage of the interval of clustered records, and of Wilson's, which takes them for independent."""
    chance = np.random.default_rng(1)
    names = [str(i // size) for i in range(clusters * size)]
    held = plain = 0
    for _ in range(runs):
        shares = np.full(clusters, truth)
        if icc:
            shares = chance.beta(truth * (1 - icc) / icc, (1 - truth) * (1 - icc) / icc, clusters)
        passes = (chance.random((clusters, size)) < shares[:, None]).ravel().tolist()
        held += _holds(clustered_rate(passes, names), truth)
        n, share = len(passes), sum(passes) / len(passes)
        half = Z95 / (n + Z95**2) * np.sqrt(n * share * (1 - share) + Z95**2 / 4)
        plain += abs((n * share + Z95**2 / 2) / (n + Z95**2) - truth) <= half
    return held / runs, plain / runs


def _holds(share: Rate, truth: float) -> bool:
    return share.low <= truth <= share.high


def table_of_labels() -> None:
    """Print coverages and widths over the grid."""
    judges = list(itertools.product(SENSITIVITIES, SPECIFICITIES))
    cells = np.array(
        [
            (expected(truth, judge, labels=labels), coverage(truth, judge, n=n, labels=labels))
            for truth, judge, n, labels in itertools.product(TRUTHS, judges, RECORDS, LABELS)
        ]
    )
    coarse = cells[:, 0] < 3 - 1e-9
    print(f"labels of the same traffic, {len(OUTCOMES):,} outcomes a cell")
    for name, chosen in (("three or more bad records and errors expected", ~coarse), ("fewer", coarse)):
        c = cells[chosen, 1]
        inside = np.mean((c >= 0.93) & (c <= 0.97))
        print(
            f"  {name}: {chosen.sum()} cells, min {c.min():.3f} median {np.median(c):.3f} max {c.max():.3f}, "
            f"within 93-97 %: {inside:.1%}"
        )
    print("mean width, 1,000 judged records of which so many are labelled, 60 outcomes")
    for truth, sensitivity, specificity, labels in COMPARED:
        found = widths(truth, (sensitivity, specificity), n=1000 - labels, labels=labels)
        said = "  ".join(f"{name} {width:.3f}" for name, width in found.items())
        print(f"  true {truth}, sensitivity {sensitivity}, specificity {specificity}, {labels} labels: {said}")
    wider = []
    for truth, judge, n, labels in itertools.product((0.6, 0.85, 0.95), judges[::4], (50, 1000), (50, 200, 600)):
        found = widths(truth, judge, n=n, labels=labels, runs=16)
        wider.append(found["same traffic"] / found["labels alone"])
    print(f"mean width over that of the labels alone, {len(wider)} cells: max {max(wider):.3f}, min {min(wider):.3f}")
    print(f"mean width of 100 records with labels of other traffic, true 0.85 / 0.9; {LEAST_LABELS} at least")
    for labels in (50, 100, 200, 400, 800):
        both = [widths(truth, (0.93, 0.8), n=100, labels=labels, runs=30)["other traffic"] for truth in (0.85, 0.9)]
        print(f"  {labels} labels: " + " / ".join(f"{width:.3f}" for width in both))


def table_of_fit() -> None:
    """Print how often the fit test is wrong, and what clustered records do to an interval."""
    print("a card said not to fit where all answers are good (exact; nominal 1 %), 50, 100, 500, 2,000 records")
    for sensitivity, labels in itertools.product((0.9, 0.98), (180, 500)):
        shares = [misfits(sensitivity, n=n, labels=labels) for n in (50, 100, 500, 2000)]
        print(f"  sensitivity {sensitivity}, {labels} labels: " + " ".join(f"{share:.4f}" for share in shares))
    print("24 clusters of 5 records, 600 runs: coverage, and that of Wilson's interval; correlation 0, 0.1, 0.3, 0.5")
    for truth in (0.8, 0.85, 0.9, 0.95):
        found = [clustered(truth, icc, runs=600) for icc in (0.0, 0.1, 0.3, 0.5)]
        print(f"  true {truth}: " + "  ".join(f"{ours:.3f} ({plain:.3f})" for ours, plain in found))


def figure(path: Path) -> None:
    """Draw the width of the interval by the number of labels, for three ways to use them."""
    counts = (50, 100, 200, 300, 400, 600)
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    plot, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    styles = {
        "other traffic": {"color": "#6b6b6b", "linestyle": "--", "label": "corrected by labels of other traffic"},
        "labels alone": {"color": "#c2452d", "label": "the labels alone, no judge"},
        "same traffic": {"color": "#14583f", "linewidth": 2.0, "label": "corrected by labels of the same traffic"},
    }
    for (truth, judge), axis in zip(((0.9, (0.95, 0.8)), (0.95, (0.98, 0.6))), axes, strict=True):
        found = [widths(truth, judge, n=1000, labels=labels, runs=30) for labels in counts]
        for name, style in styles.items():
            axis.plot(counts, [each[name] for each in found], **style)
        axis.set_title(f"true score {truth}, sensitivity {judge[0]}, specificity {judge[1]}", fontsize=9)
        axis.set_xlabel("labels, beside 1,000 judged records")
        axis.set_ylim(0, None)
    axes[0].set_ylabel("mean width of the 95 % interval")
    handles, names = axes[0].get_legend_handles_labels()
    plot.legend(handles, names, loc="lower center", ncol=3, frameon=False)
    plot.tight_layout(rect=(0, 0.08, 1, 1))
    plot.savefig(path, dpi=120)


def main() -> None:
    """Print the tables and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "figures" / "labelled-traffic.png")
    options = parser.parse_args()
    table_of_labels()
    table_of_fit()
    figure(options.figure)
    print(f"the figure is in {options.figure}")


if __name__ == "__main__":
    main()
