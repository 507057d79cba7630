"""How often a canary stretch ends with a rollback: of a model that is as good, and of one that is worse.

python benchmarks/canary.py [--figure docs/figures/canary.png | --rollouts]

Two rules on the same stretches: the earlier one (roll back where the whole 95 % interval of the difference is under
zero, at whichever look) and the present one (``ontopic.statistics.group_sequential``). A minute on one core. With
``--rollouts``: of how many rollouts in one, two and three stages that is so, where the stages share the level.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from ontopic.statistics.group_sequential import LEVEL, detectable_loss, look
from ontopic.statistics.rates import Z95

ROOT = Path(__file__).resolve().parents[1]
RUNS = 10_000  # the standard error of a share of 2.5 % is 0.16 %
CADENCES = ((1, 120), (24, 5), (24, 20), (10, 100), (50, 100), (96, 20))  # looks, new pairs at each
WORSE = (
    (1, 120, 0.05, 0.10),
    (24, 5, 0.05, 0.10),
    (24, 20, 0.05, 0.10),
    (10, 100, 0.05, 0.10),
    (10, 100, 0.03, 0.10),
    (50, 100, 0.03, 0.10),
    (96, 20, 0.03, 0.10),
)
FIRST_Z = 2.7  # an exact p of 0.00135 is over that many standard errors
LAST_Z = 1.7  # and the end needs more than these


def stretches(looks: int, size: int, *, discordant: float, worse: float, runs: int, seed: int = 0) -> NDArray[np.int64]:
    """Losses and wins at each look of each stretch, so far: shape (runs, looks, 2)."""
    shares = [(discordant + worse) / 2, (discordant - worse) / 2, 1 - discordant]
    pairs = np.random.default_rng(seed).multinomial(size, shares, size=(runs, looks)).cumsum(1)
    return np.asarray(pairs[:, :, :2])


def rolled_back(pairs: NDArray[np.int64]) -> tuple[float, float]:
    """Share of the stretches that end with a rollback: by the earlier rule and by the present one."""
    earlier, present = ended(pairs, LEVEL)
    return float(earlier.mean()), float(present.mean())


def ended(pairs: NDArray[np.int64], level: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of the stretches end with a rollback: by the earlier rule, and by the present one at that level."""
    losses, seen = pairs[:, :, 0], pairs.sum(2)
    z = (2 * losses - seen) / np.sqrt(np.maximum(seen, 1))  # Tango's score test of no difference
    earlier, present = (z > Z95).any(1), np.zeros(len(pairs), dtype=bool)
    for run in np.flatnonzero((z[:, :-1] > FIRST_Z).any(1) | (z[:, -1] > LAST_Z)):
        early = np.flatnonzero(z[run, :-1] > FIRST_Z)
        one = ([int(seen[run, i])] for i in early)
        present[run] = any(
            look(n, int(losses[run, i]), final=False, level=level).worse for n, i in zip(one, early, strict=True)
        ) or (z[run, -1] > LAST_Z and look(seen[run].tolist(), int(losses[run, -1]), final=True, level=level).worse)
    return earlier, present


def rollouts() -> None:
    """Print how many rollouts are sent back in one of their stages, the canary's being the last."""
    print(f"| stages | looks | discordant | truly worse by | rollouts | sent back |\n|{'---|' * 6}")
    for looks, size, worse in ((24, 5, 0.0), (24, 20, 0.0), (24, 5, 0.05), (24, 20, 0.05)):
        for stages in (1, 2, 3):
            runs = RUNS if not worse else RUNS // 5
            back = np.zeros(runs, dtype=bool)
            for stage in range(stages):
                pairs = stretches(looks, size, discordant=0.10, worse=worse, runs=runs, seed=stage)
                back |= ended(pairs, LEVEL / stages)[1]
            print(f"| {stages} | {looks} of {size} | 0.10 | {worse:.2f} | {runs:,} | {back.mean():.3f} |", flush=True)


def table() -> None:
    """Print both rules' rollbacks of an equal model, and of a worse one."""
    print(f"| looks | discordant | truly worse by | stretches | earlier rule | present rule |\n|{'---|' * 6}")
    cells = [(looks, size, 0.0, share) for looks, size in CADENCES for share in (0.05, 0.15)]
    for looks, size, worse, share in (*cells, *WORSE):
        runs = RUNS if not worse else RUNS // 5
        earlier, present = rolled_back(stretches(looks, size, discordant=share, worse=worse, runs=runs))
        print(
            f"| {looks} of {size} | {share:.2f} | {worse:.2f} | {runs:,} | {earlier:.3f} | {present:.3f} |", flush=True
        )
    print("\nFound with 80 % power at the end, where 2.5 % of the pairs are wins:")
    for n in (60, 120, 300, 1000, 3000):
        print(f"{n:,} pairs: {detectable_loss(n, round(n * 0.025)):.3f} worse")


def figure(out: Path) -> None:
    """Draw rollbacks by how much worse the model is, of a day of 24 looks of 20."""
    fig, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    losses = np.linspace(0, 0.08, 9)
    found: Any = [rolled_back(stretches(24, 20, discordant=0.10, worse=w, runs=1000)) for w in losses]
    for which, name in enumerate(("every look at 2.5 % (earlier)", "Haybittle-Peto (now)")):
        axes.plot(losses, [each[which] for each in found], marker="o", label=name)
    axes.axhline(0.03, color="grey", linestyle=":", label="3 %")
    axes.set(xlabel="how much worse the new champion truly is", ylabel="stretches that end with a rollback")
    axes.set_title("24 looks of 20 questions, 10 % of them discordant", fontsize="medium")
    axes.legend()
    fig.savefig(out, dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--rollouts", action="store_true")
    chosen = parser.parse_args()
    if chosen.rollouts:
        rollouts()
    elif chosen.figure:
        figure(chosen.figure)
    else:
        table()
