"""How often a gate that looks again and again promotes a challenger that is no better, and how often one that is.

python benchmarks/gate_looks.py [--runs 2000] [--figure docs/figures/looks.png]

Each question has a probability that a model passes it, between questions as a beta distribution has it, so that two
equal models differ on ``discordant`` of them. Each model's verdicts are drawn once and stay: a champion that was lucky
on the gate's questions is lucky there whenever they are asked again. The rules:

- same questions: 450 of the evaluation split, always the same, each look at 5 %, two-sided
- fresh draws: 450 of the split for each look, each at 5 %; and 720 of its unsealed part
- spent: 720 of the unsealed part for each look, alpha spent as ``ontopic.evaluation.looks`` does, the sealed set last
- spent, rehearsed: the same, and after the first look at a champion none for a challenger that is not ahead on the
  calibration split: what OnTopic does
- the same, 4 times as many: with four times as many questions of the evaluation split, four times as many asked

"Any false": the share of runs in which a challenger is promoted, all being truly equal. "Better promoted": in 30 loops
of challengers that are better by 0.01 on average, with a standard deviation of 0.015, the share of those better by more
than 0.015 that is promoted. "+0.02, first gate": the share promoted of challengers better by 0.02, at their champion's
first gate.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from ontopic.evaluation import rehearsal
from ontopic.evaluation.looks import alpha_at

# The banking questions when docs/explanation/statistics.md was measured: unsealed, sealed, and what a rehearsal asked
# of the calibration split, which has 636 now.
UNSEALED, SEALED, CALIBRATION = 826, 223, 384
LEVEL = 0.85  # of the first champion
ALPHAS = np.array([alpha_at(k) for k in range(1, 2000)])


@dataclass(frozen=True)
class Rule:
    """How a gate looks.

    Attributes:
        questions: asked in a look.
        pool: how many of the evaluation split they are drawn from.
        fresh: whether each look draws them anew.
        spends: whether looks share alpha.
        times: as many questions as are shipped, unsealed, sealed and asked.
    """

    name: str
    questions: int
    pool: int = UNSEALED + SEALED
    fresh: bool = True
    spends: bool = False
    rehearses: bool = False
    seals: bool = False
    times: int = 1


RULES = (
    Rule("same questions", 450, fresh=False),
    Rule("fresh draws", 450),
    Rule("fresh draws of 720", 720, pool=UNSEALED),
    Rule("spent", 720, pool=UNSEALED, spends=True, seals=True),
    Rule("spent, rehearsed", 720, pool=UNSEALED, spends=True, rehearses=True, seals=True),
    Rule("the same, 4 times as many", 720, pool=UNSEALED, spends=True, rehearses=True, seals=True, times=4),
)


@dataclass(frozen=True)
class World:
    """What comes to the gate.

    Attributes:
        mean, spread: of what a challenger is truly better by than the champion of the day.
        discordant: share of questions on which two equal models differ.
        attempts: challengers a loop, until one is promoted.
    """

    mean: float = 0.0
    spread: float = 0.0
    discordant: float = 0.1
    attempts: int = 1
    loops: int = 60


@dataclass(frozen=True)
class Outcome:
    """What came of all runs.

    Attributes:
        false: the share of runs with a challenger promoted that is no better, after each loop.
        found: the share promoted of challengers that are better by more than 0.015.
        gained: of the true level, over all loops.
        looks: a run.
    """

    false: NDArray[np.float64]
    found: float
    gained: float
    looks: float


def simulate(rule: Rule, world: World, *, runs: int, seed: int = 0) -> Outcome:
    """All runs of a world side by side."""
    chance = np.random.default_rng(seed)
    n, pool = rule.times * (UNSEALED + SEALED), rule.times * rule.pool
    total = n + CALIBRATION
    mixed = world.discordant / 2 / (LEVEL * (1 - LEVEL))
    spread = mixed / (1 - mixed)
    easy = chance.beta(LEVEL * spread, (1 - LEVEL) * spread, (runs, total)).astype(np.float32)

    def verdicts(level: NDArray[np.float64]) -> NDArray[np.bool_]:
        more = (level - LEVEL)[:, None].astype(np.float32)
        passes = easy + more * np.where(more > 0, (1 - easy) / (1 - LEVEL), easy / LEVEL)
        return chance.random((runs, total), dtype=np.float32) < passes

    level = np.full(runs, LEVEL)
    champion = verdicts(level)
    spent, looks = (np.zeros(runs, int) for _ in range(2))
    first_false = np.full(runs, world.loops)
    better = found = 0
    for loop in range(world.loops):
        done = np.zeros(runs, bool)
        for _ in range(world.attempts):
            gain = chance.normal(world.mean, world.spread, runs)
            truth = np.clip(level + gain, 0, 0.995)
            challenger = verdicts(truth)
            wins, losses = challenger & ~champion, champion & ~challenger
            takes = ~done
            if rule.rehearses:
                ahead = _excess(_counts(wins[:, n:], losses[:, n:])) > norm.isf(rehearsal.ALPHA / 2)
                takes &= ahead | (spent == 0)
            alpha = ALPHAS[spent] if rule.spends else 0.05
            drawn = _drawn(wins, losses, rule=rule, chance=chance)
            passes = takes & (_excess(drawn) > norm.isf(alpha / 2))
            spent, looks = spent + takes, looks + takes
            if rule.seals:
                passes &= _found_again(drawn, _counts(wins[:, pool:n], losses[:, pool:n]))
            is_better = ~done & (gain > 0.015)
            better, found = better + is_better.sum(), found + (is_better & passes).sum()
            first_false = np.where(passes & (gain <= 0), np.minimum(first_false, loop), first_false)
            champion[passes], level = challenger[passes], np.where(passes, truth, level)
            spent = np.where(passes, 0, spent)
            done |= passes
    false = np.array([(first_false <= loop).mean() for loop in range(world.loops)])
    return Outcome(false, found / max(better, 1), float((level - LEVEL).mean()), float(looks.mean()))


Counts = tuple[NDArray[np.int64], NDArray[np.int64], int]  # wins and losses of each run, and of how many questions


def _counts(wins: NDArray[np.bool_], losses: NDArray[np.bool_]) -> Counts:
    return wins.sum(1), losses.sum(1), wins.shape[1]


def _drawn(wins: NDArray[np.bool_], losses: NDArray[np.bool_], *, rule: Rule, chance: np.random.Generator) -> Counts:
    """What a look finds: the first questions of the pool, or as many drawn from it."""
    n, pool = rule.times * rule.questions, rule.times * rule.pool
    if not rule.fresh:
        return _counts(wins[:, :n], losses[:, :n])
    of_wins, of_losses, _ = _counts(wins[:, :pool], losses[:, :pool])
    won = chance.hypergeometric(of_wins, pool - of_wins, n)
    return won, chance.hypergeometric(of_losses, pool - of_wins - of_losses, n - won), n


def _excess(of: Counts) -> NDArray[np.float64]:
    """By how many of Tango's standard errors the challenger is ahead."""
    won, lost, _ = of
    return (won - lost) / np.sqrt(np.maximum(won + lost, 1))


def _found_again(drawn: Counts, sealed: Counts) -> NDArray[np.bool_]:
    """Whether the sealed questions do not contradict the drawn ones; with Wald's intervals, for speed."""
    gains = [(won - lost) / n for won, lost, n in (drawn, sealed)]
    variances = [((won + lost) / n - gain**2) / n for (won, lost, n), gain in zip((drawn, sealed), gains, strict=True)]
    return gains[1] - gains[0] + norm.isf(0.025) * np.sqrt(sum(variances)) >= 0


def _row(rule: Rule, runs: int, **world: float) -> tuple[Outcome, list[str]]:
    equal = simulate(rule, World(**world), runs=runs)  # type: ignore[arg-type]
    few = max(runs // 4, 100)
    mixed = simulate(rule, World(mean=0.01, spread=0.015, loops=30, **world), runs=few)  # type: ignore[arg-type]
    single = simulate(rule, World(mean=0.02, loops=1, **world), runs=runs)  # type: ignore[arg-type]
    false = [f"{equal.false[loops - 1]:.3f}" for loops in (10, 30, 60)]
    return equal, [*false, f"{equal.looks:.0f}", f"{mixed.found:.3f}", f"{mixed.gained:+.3f}", f"{single.found:.3f}"]


def main() -> None:
    """Print the table, and draw the figure where one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    started, curves = time.monotonic(), {}
    columns = (
        "any false after 10 loops",
        "30",
        "60",
        "looks",
        "better promoted",
        "level gained",
        "+0.02, first gate",
    )
    print("| discordant | attempts | rule | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 3) + "|")
    for discordant in (0.1, 0.2):
        for attempts in (1, 2):
            for rule in RULES:
                equal, cells = _row(rule, options.runs, discordant=discordant, attempts=attempts)
                curves[discordant, attempts, rule.name] = equal.false
                print(f"| {discordant} | {attempts} | {rule.name} | " + " | ".join(cells) + " |", flush=True)
    print(f"{options.runs} runs, of +0.01 ± 0.015 a quarter; {time.monotonic() - started:.0f} s")
    if options.figure:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(figsize=(7, 4))
        for rule in RULES:
            axes.plot(range(1, 61), curves[0.1, 2, rule.name], label=rule.name)
        axes.axhline(0.05, color="grey", linewidth=0.8, linestyle="--")
        axes.set(xlabel="loops, two attempts each", ylabel="chance of any false promotion", ylim=(0, None))
        axes.legend(frameon=False)
        figure.tight_layout()
        figure.savefig(options.figure, dpi=120)


if __name__ == "__main__":
    main()
