"""False alarms a month and delay of the monitoring chart, beside the rule before it, by simulation.

The judge's card is an estimate, so it is drawn anew for each month, from 818 labels (509 passes, 309 fails) of a judge
with the sensitivity and specificity below; besides, without any card, and with a card of 200 labels drawn at random
from traffic. The rule before: a window alarms where the whole 95 % interval of its corrected score is under the
threshold. `python benchmarks/alarms.py` prints the table and draws docs/figures/alarms.png.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from ontopic.monitoring import chart
from ontopic.statistics.correction import compatible
from ontopic.statistics.rates import rate

ROOT = Path(__file__).resolve().parents[1]
SENSITIVITY, SPECIFICITY, THRESHOLD = 475 / 509, 281 / 309, 0.85
CADENCES = ((30, 120), (300, 100), (720, 100), (720, 20), (720, 5), (30, 1000))  # windows a month, records a window
HEALTHY, FALLEN = (0.85, 0.87, 0.90), (0.83, 0.82, 0.80, 0.75)
A_DAY, LONGEST = 120, 60  # of the delays: records a window, and the windows that are waited for
_MORE, _QUICK = 4, 3600  # so many times the months, of delays and of months with so few records

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cards:
    """Cards of one judge as their labels came out; each array has one element a month. Counts of 0: no card."""

    good: Floats
    passes: Floats
    bad: Floats
    fails: Floats

    def __len__(self) -> int:
        return len(self.good)

    def first(self, n: int) -> Cards:
        """The first ``n`` of them."""
        return Cards(self.good[:n], self.passes[:n], self.bad[:n], self.fails[:n])


def of_818_labels(months: int, chance: np.random.Generator) -> Cards:
    """The size of the default card, which has 509 records labelled pass and 309 labelled fail."""
    return _cards(np.full(months, 509), np.full(months, 309), chance)


def of_200_labels(months: int, chance: np.random.Generator) -> Cards:
    """Drawn at random from traffic of which nine in ten records are good."""
    passes = chance.binomial(200, 0.9, months)
    return _cards(passes, 200 - passes, chance)


def no_card(months: int, chance: np.random.Generator) -> Cards:
    """The judge is taken to make no errors, and makes none."""
    nothing = np.zeros(months)
    return Cards(nothing, nothing, nothing, nothing)


def _cards(passes: NDArray[np.int_], fails: NDArray[np.int_], chance: np.random.Generator) -> Cards:
    good, bad = chance.binomial(passes, SENSITIVITY), chance.binomial(fails, SPECIFICITY)
    return Cards(good.astype(float), passes.astype(float), bad.astype(float), fails.astype(float))


def judge_passes(truth: float, cards: Cards) -> float:
    """The share of records that the judge passes at a true score."""
    return truth if not cards.passes.any() else truth * SENSITIVITY + (1 - truth) * (1 - SPECIFICITY)


def levels(cards: Cards) -> tuple[Floats, Floats]:
    """What the chart holds records against, of shapes (months,) and (drops, months)."""
    found = [
        chart.levels_of(
            THRESHOLD,
            SimpleNamespace(sensitivity=rate(int(a), int(m)), specificity=rate(int(b), int(n))) if m else None,
        )
        for a, m, b, n in zip(cards.good, cards.passes, cards.bad, cards.fails, strict=True)
    ]
    return np.array([each.healthy for each in found if each]), np.array([each.lowered for each in found if each]).T


def first_alarms(
    truth: float, cards: Cards, *, records: int, a_day: float, seed: int, healthy_days: int = 0
) -> NDArray[np.int_]:
    """The record at which each month's chart alarms first, from 1; more than ``records`` where it does not.

    Args:
        healthy_days: days at a true score of 0.90 before; a month that alarms in them is left out.
    """
    chance, months = np.random.default_rng(seed), len(cards)
    healthy, lowered = levels(cards)
    passed_by, failed_by = lowered / healthy, (1 - lowered) / (1 - healthy)
    weights = np.array([weight for _, weight in chart.DROPS])
    evidence, alarmed = np.zeros(lowered.shape), np.zeros(months, dtype=int)
    before, share = round(healthy_days * a_day), judge_passes(truth, cards)
    draws, well = np.empty((0, months)), judge_passes(0.90, cards)
    for n in range(1, before + records + 1):
        if (row := (n - 1) % 1000) == 0:
            draws = chance.random((1000, months))
        passed = draws[row] < (share if n > before else well)
        evidence = np.minimum((1 + evidence) * np.where(passed, passed_by, failed_by), 1e250)
        limit = chart.RUN_LENGTH.days * max(n / max((n - 1) / a_day, 1.0), 15)
        if n >= chart.LEAST_RECORDS:
            new = (weights @ evidence >= limit) & (alarmed == 0)
            alarmed[new] = n
    alarmed[alarmed == 0] = before + records + 1
    return alarmed[alarmed > before] - before


def check_against_the_chart() -> None:
    """That this simulation is of the chart that monitoring uses."""
    from datetime import UTC, datetime, timedelta

    cards, start = of_818_labels(3, np.random.default_rng(0)), datetime(2026, 1, 1, tzinfo=UTC)
    found = first_alarms(0.80, cards, records=2000, a_day=A_DAY, seed=5)
    draws = np.concatenate([np.random.default_rng(5).random((2000, 3))])
    for month in range(3):
        card = SimpleNamespace(
            sensitivity=rate(int(cards.good[month]), 509), specificity=rate(int(cards.bad[month]), 309)
        )
        outcomes = [
            (start + i * timedelta(days=1) / A_DAY, bool(draw < judge_passes(0.80, cards)))
            for i, draw in enumerate(draws[:, month])
        ]
        done = chart.carried(None, outcomes[: found[month]], since=start, levels=chart.levels_of(THRESHOLD, card))
        early = chart.carried(None, outcomes[: found[month] - 1], since=start, levels=chart.levels_of(THRESHOLD, card))
        if not (done and early) or (done.alarm, early.alarm) != (found[month] <= 2000, False):
            raise RuntimeError("the simulation and the chart differ")


def old_rule(truth: float, cards: Cards, n: int) -> Floats:
    """The chance that a window of ``n`` records alarms by the rule before, for each card."""
    x = np.arange(n + 1)
    if not cards.passes.any():
        highest = np.array([x[[rate(int(i), n).high < THRESHOLD for i in x]].max(initial=-1)])
    else:
        a, m, b, k = (each[:, None] for each in (cards.good, cards.passes, cards.bad, cards.fails))
        estimate = (x / n + b / k - 1) / (a / m + b / k - 1)
        out = ~compatible(THRESHOLD, (x, n), sensitivity=(a, m), specificity=(b, k)) & (estimate < THRESHOLD)
        highest = np.where(out, x, -1).max(axis=1)
    return binom.cdf(highest, n, judge_passes(truth, cards))


def quantile_windows(chances: Floats, share: float) -> float:
    """Windows until so many of the months have alarmed, where each window alarms with its card's chance."""
    windows = np.arange(1, 400)
    done = 1 - ((1 - chances[:, None]) ** windows).mean(axis=0)
    return float(windows[np.argmax(done >= share)]) if done[-1] >= share else np.inf


def table(kinds: Sequence[str], months: int) -> dict[str, dict[tuple[str, object], tuple[float, float]]]:
    """Print false alarms and delays for each kind of card; returns (old, new) by what was measured."""
    makers = {"818 labels": of_818_labels, "no card": no_card, "200 random labels": of_200_labels}
    found: dict[str, dict[tuple[str, object], tuple[float, float]]] = {}
    for kind in kinds:
        cards, rows = makers[kind](_MORE * months, np.random.default_rng(7)), {}
        print(
            f"\n{kind}, {months:,} to {_MORE * months:,} months: share with a false alarm, rule before -> chart",
            flush=True,
        )
        volumes = sorted({windows * size for windows, size in CADENCES})
        alarms = {
            (truth, v): first_alarms(
                truth, cards if v <= _QUICK else cards.first(months), records=v, a_day=v / 30, seed=i
            )
            for i, truth in enumerate(HEALTHY)
            for v in volumes
        }
        for windows, size in CADENCES:
            said = []
            for truth in HEALTHY:
                old = float(1 - ((1 - old_rule(truth, cards, size)) ** windows).mean())
                new = float((alarms[truth, windows * size] <= windows * size).mean())
                rows["false", (windows, size, truth)] = old, new
                said.append(f"{truth}: {old:.3f} -> {new:.3f}")
            print(f"  {windows:3} windows of {size:5,}   " + "   ".join(said), flush=True)
        print(f"{kind}: windows of {A_DAY} until found, median / 90 %, rule before -> chart (-> after 30 good days)")
        for i, truth in enumerate(FALLEN):
            chances = old_rule(truth, cards, A_DAY)
            options = {"records": LONGEST * A_DAY, "a_day": A_DAY, "seed": 20 + i}
            fresh = _in_windows(first_alarms(truth, cards, **options))
            grown = _in_windows(first_alarms(truth, cards, healthy_days=30, **options))
            old = quantile_windows(chances, 0.5), quantile_windows(chances, 0.9)
            rows["median", truth], rows["90 %", truth] = (old[0], fresh[0]), (old[1], fresh[1])
            shown = [f"{_n(a)} / {_n(b)}" for a, b in (old, fresh, grown)]
            print(f"  {truth}: {shown[0]} -> {shown[1]} (-> {shown[2]})", flush=True)
        found[kind] = rows
    return found


def _in_windows(alarmed: NDArray[np.int_]) -> tuple[float, float]:
    """Median and 90 % quantile; infinite where so many were not found in time."""
    windows = np.ceil(alarmed / A_DAY)
    windows[windows > LONGEST] = np.inf
    ordered = np.sort(windows)
    return tuple(float(ordered[int(np.ceil(share * len(ordered))) - 1]) for share in (0.5, 0.9))  # type: ignore[return-value]


def _n(windows: float) -> str:
    return f"{windows:.0f}" if np.isfinite(windows) else f">{LONGEST}"


def figure(rows: dict[tuple[str, object], tuple[float, float]], path: Path) -> None:
    """Draw false alarms at 0.87 by cadence, and the delay by true score."""
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    plot, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
    x = np.arange(len(CADENCES))
    for side, (name, colour) in enumerate((("a window's interval", "#c2452d"), ("the chart", "#14583f"))):
        heights = [100 * rows["false", (windows, size, 0.87)][side] for windows, size in CADENCES]
        left.bar(x + 0.4 * side - 0.2, heights, 0.4, color=colour, label=name)
        for share, line in (("median", "--"), ("90 %", "-")):
            delays = [rows[share, truth][side] for truth in FALLEN]
            right.plot(FALLEN, delays, line, marker="o", color=colour, label=f"{name}, {share}")
    left.axhline(5, color="#6b6b6b", linewidth=1, linestyle=":")
    left.text(len(CADENCES) - 0.5, 7, "5 %", ha="right", color="#6b6b6b")
    left.set_xticks(x, [f"{windows} of\n{size:,}" for windows, size in CADENCES])
    left.set_xlabel("windows a month, records a window")
    left.set_ylabel("months with a false alarm, %")
    left.set_title("a champion at 0.87, the threshold at 0.85", fontsize=9)
    right.set_xlabel("true score after the fall")
    right.set_ylabel(f"windows of {A_DAY} until it is found")
    right.set_title("how soon a fall is found", fontsize=9)
    right.set_xticks(FALLEN)
    left.set_ylim(0, 120)
    left.set_yticks(range(0, 101, 20))
    left.legend(frameon=False, loc="upper left", ncols=2)
    right.legend(frameon=False)
    plot.tight_layout()
    plot.savefig(path, dpi=120)


def main() -> None:
    """Print the tables and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--months", type=int, default=1000)
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "figures" / "alarms.png")
    options = parser.parse_args()
    started = time.perf_counter()
    check_against_the_chart()
    found = table(("818 labels", "no card", "200 random labels"), options.months)
    figure(found["818 labels"], options.figure)
    print(f"\n{time.perf_counter() - started:.0f} s; the figure is in {options.figure}")


if __name__ == "__main__":
    main()
