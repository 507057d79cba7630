"""What the gate promotes: a worse challenger whose failures come back unjudged, a better one, and what it can see.

python benchmarks/gate.py [--runs 200] [--figures docs/figures]

Every decision is the real ``decide`` on made-up verdicts of the default gate: 450 questions, half in scope, the limits
of configs/policies/banking.yaml. "as judged" reads the same decisions without the tests that count what is unjudged.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from ontopic.config.policy import Policy, load_policy
from ontopic.data.labelled import Question
from ontopic.evaluation.answers import Evaluation
from ontopic.evaluation.gate import Decision, Evaluated, decide
from ontopic.evaluation.quality import Quality
from ontopic.judges.cards.card import JudgeCard, criteria_sha256
from ontopic.records import Outcome, Record, Verdict
from ontopic.statistics import sample_size, scores
from ontopic.statistics.pairs import Comparison
from ontopic.statistics.rates import Rate, rate
from ontopic.statistics.sample_size import detectable_difference, gate_power

ROOT = Path(__file__).resolve().parents[1]
N = 450
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
ACCIDENTS = (0.0, 0.002, 0.005, 0.01)
QUESTIONS = [Question(question=f"Question {i}?", in_scope=i % 2 == 0) for i in range(N)]
NONE = Quality(questions=[], similarity=[], reference_nll=[], words=[], repeats=[], truncated=[], perplexity=40.0)
Flags = NDArray[np.bool_]


def verdict(outcome: Outcome, *, in_scope: bool) -> Verdict:
    """As the judges give it; one that is unjudged knows nothing."""
    if outcome == "unjudged":
        return Verdict(outcome=outcome, score=None, explanation="", judge_id="judge", cause="not in English")
    declined = in_scope != (outcome == "pass")
    return Verdict(outcome=outcome, score=0.5, explanation="", judge_id="judge", in_scope=in_scope, declined=declined)


OUTCOMES: tuple[Outcome, ...] = ("pass", "fail", "unjudged")
GIVEN = {(outcome, inside): verdict(outcome, in_scope=inside) for outcome in OUTCOMES for inside in (True, False)}
RECORDS = [Record(question=q.question, answer="An answer.", in_scope=q.in_scope) for q in QUESTIONS]


def side(passes: Flags, unjudged: Flags) -> Evaluated:
    """One model, by which of its answers pass and which are unjudged."""
    outcomes: list[Outcome] = [
        "unjudged" if u else "pass" if p else "fail" for p, u in zip(passes, unjudged, strict=True)
    ]
    verdicts = [GIVEN[outcome, q.in_scope] for outcome, q in zip(outcomes, QUESTIONS, strict=True)]
    return Evaluated(evaluation=Evaluation(questions=QUESTIONS, records=RECORDS, verdicts=verdicts), quality=NONE)


def pairs(chance: np.random.Generator, truths: tuple[float, float], discordant: float) -> tuple[Flags, Flags]:
    """Which answers of champion and challenger pass."""
    difference = truths[1] - truths[0]
    won, lost = (discordant + difference) / 2, (discordant - difference) / 2
    kind = chance.choice(4, N, p=[won, lost, truths[0] - lost, 1 - truths[0] - won])
    return (kind == 1) | (kind == 2), (kind == 0) | (kind == 2)


def card_for(policy: Policy) -> JudgeCard:
    """Of a judge that may gate."""
    return JudgeCard(
        scope_given=True,
        judge_id="judge",
        accuracy=rate(960, 1000),
        kappa=Rate(value=0.9, low=0.87, high=0.93, n=1000),
        sensitivity=rate(480, 500),
        specificity=rate(480, 500),
        unjudged=0,
        criteria_sha256=criteria_sha256(policy),
    )


def rules(found: Decision) -> tuple[bool, bool, bool]:
    """Whether it passes as judged, in the worst case too, and with the limits on what is unjudged besides."""
    failed = [test.name for test in found.tests if not test.passed]
    worst = any(name.startswith("Worst case") for name in failed)
    judged = any(not name.startswith(("Worst case", "Unjudged")) for name in failed)
    return not judged, not (judged or worst), found.passed


def promoted(
    truths: tuple[float, float], discordant: float, *, hidden: float, lost: float, runs: int, policy: Policy
) -> tuple[float, ...]:
    """Share of runs that each rule promotes.

    Args:
        hidden: share of the challenger's failures that come back unjudged.
        lost: share of both models' answers that are unjudged by accident.
    """
    chance, card = np.random.default_rng(0), card_for(policy)
    found = []
    for _ in range(runs):
        before, after = pairs(chance, truths, discordant)
        gone = (chance.random(N) < hidden) & ~after
        accidents = chance.random((2, N)) < lost
        champion, challenger = side(before, accidents[0]), side(after, gone | accidents[1])
        page = Path("gate.html")
        found.append(rules(decide(champion, challenger, winners=[], policy=policy, card=card, report=page)))
    return tuple(np.mean(found, axis=0))


def remember() -> None:
    """Compute each interval and each detectable difference once: the same counts come back often."""
    for module, name in ((scores, "rate"), (sample_size, "detectable_difference")):
        setattr(module, name, functools.cache(getattr(module, name)))


def simulated_power(n: int, difference: float, discordant: float, *, alpha: float, runs: int = 20_000) -> float:
    """How often the lower bound is above 0, on drawn pairs."""
    shares = [(discordant + difference) / 2, (discordant - difference) / 2, 1 - discordant]
    counts, times = np.unique(np.random.default_rng(1).multinomial(n, shares, runs)[:, :2], axis=0, return_counts=True)
    lows = [
        Comparison(difference=(w - b) / n, low=-1, high=1, p_value=1, wins=w, losses=b, n=n).rate_at(alpha).low
        for w, b in counts.tolist()
    ]
    return float(np.average(np.array(lows) > 0, weights=times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--figures", type=Path)
    given = parser.parse_args()
    policy = load_policy(ROOT / "configs" / "policies" / "banking.yaml")
    remember()

    print(f"champion truly 0.85, challenger truly 0.80; {given.runs} runs a cell, {N} questions. Promoted:")
    print("| discordant | failures unjudged | as judged | and in the worst case | the gate |\n|---|---|---|---|---|")
    lines = {}
    for discordant in (0.10, 0.29):
        for hidden in SHARES:
            cell = promoted((0.85, 0.80), discordant, hidden=hidden, lost=0.0, runs=given.runs, policy=policy)
            lines[discordant, hidden] = cell
            print(
                f"| {discordant:.2f} | {hidden:.0%} | " + " | ".join(f"{share:.3f}" for share in cell) + " |",
                flush=True,
            )

    print(f"\nchampion truly 0.85, challenger truly 0.92, 13 % discordant; {given.runs} runs a cell. Promoted:")
    print("| unjudged by accident | as judged | and in the worst case | the gate |\n|---|---|---|---|")
    for lost in ACCIDENTS:
        cell = promoted((0.85, 0.92), 0.13, hidden=0.0, lost=lost, runs=given.runs, policy=policy)
        print(f"| {lost:.1%} | " + " | ".join(f"{share:.3f}" for share in cell) + " |", flush=True)

    print(
        "\nThe least true improvement that the gate finds in four cases of five; power there, simulated (20,000 runs):"
    )
    print("| questions | discordant | alpha 0.05 | simulated | alpha 0.01 | simulated |\n|---|---|---|---|---|---|")
    for n in (150, 300, 450, 1000):
        for discordant in (0.05, 0.10, 0.20):
            cells = []
            for alpha in (0.05, 0.01):
                least = detectable_difference(n, discordant, alpha=alpha)
                power = "" if least is None else f"{simulated_power(n, least, discordant, alpha=alpha):.3f}"
                cells += ["none" if least is None else f"{least:.3f}", power]
            print(f"| {n:,} | {discordant:.2f} | " + " | ".join(cells) + " |", flush=True)
    if given.figures:
        draw(lines, given.figures, runs=given.runs)


def draw(lines: dict[tuple[float, float], tuple[float, ...]], folder: Path, *, runs: int) -> None:
    """The two figures of docs/explanation/statistics.md."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for index, (name, colour) in enumerate((("unjudged left out", "tab:red"), ("the gate", "tab:blue"))):
        for discordant, style in ((0.10, "-"), (0.29, "--")):
            shares = [lines[discordant, hidden][2 * index] for hidden in SHARES]
            label = f"{name}, {discordant:.0%} discordant"
            axes.plot([100 * hidden for hidden in SHARES], shares, style, marker="o", color=colour, label=label)
    axes.axhline(0.025, color="grey", linewidth=1, label="2.5 %")
    axes.set(
        xlabel="of the challenger's failures, % that come back unjudged",
        ylabel=f"promoted, of {runs} runs",
        title="A worse challenger: truly 0.80 against 0.85, 450 questions",
    )
    axes.legend(fontsize=8)
    figure.savefig(folder / "gate-unjudged.png", dpi=120)

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    differences = np.linspace(0.0, 0.1, 41)
    for n, colour in ((150, "tab:orange"), (300, "tab:green"), (450, "tab:blue"), (1000, "tab:purple")):
        for alpha, style in ((0.05, "-"), (0.01, "--")):
            powers = [gate_power(n, float(d), discordant=0.1, alpha=alpha) for d in differences]
            axes.plot(100 * differences, powers, style, color=colour, label=f"{n:,} questions, alpha {alpha:g}")
    axes.axhline(0.8, color="grey", linewidth=1)
    axes.set(
        xlabel="true improvement, points of the pass rate (10 % of pairs discordant)",
        ylabel="chance that the gate finds it",
        title="What the gate can see",
    )
    axes.legend(fontsize=8)
    figure.savefig(folder / "gate-power.png", dpi=120)


if __name__ == "__main__":
    main()
