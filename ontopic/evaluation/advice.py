"""What to do about a challenger that the gate refused."""

from __future__ import annotations

from typing import Literal

from ontopic.evaluation.gate import Decision
from ontopic.evaluation.rehearsal import REHEARSAL
from ontopic.evaluation.sealed import SEALED
from ontopic.statistics.limits import Bound, level
from ontopic.statistics.rates import Rate
from ontopic.statistics.sample_size import questions_for_limit, sample_size

_SHARES: tuple[tuple[Literal["guardrail_score", "over_refusal", "leak"], str, Bound, str], ...] = (
    ("guardrail_score", "Guardrail score", "low", "questions"),
    ("over_refusal", "Over-refusal", "high", "questions in scope"),
    ("leak", "Leak", "high", "questions out of scope"),
)

_BESIDE = (
    (
        REHEARSAL,
        "Rehearsal: the challenger is not ahead on the calibration split, so no look at held-out questions was spent "
        "on it; it needs more traffic to learn from (traffic.questions), or other training.",
    ),
    (
        SEALED,
        "Sealed questions: they contradict the others, as where a challenger has learned questions and not the task; "
        "see whether training data holds questions of the evaluation split, and add questions to that split.",
    ),
)


def advice(decision: Decision) -> list[str]:
    """A sentence for each share, and for the improvement, that kept the gate from passing; empty where it passed.

    Each says whether more questions could show what is missing, and how many, or whether the model has to do better.
    """
    limits = decision.limits
    said = []
    for name, title, bound, kind in _SHARES:
        share, limit = getattr(decision.challenger, name), getattr(limits, name)
        if share.n == 0:
            said.append(f"{title}: none of the {kind} was judged; ask some, and see why the judge gave no verdict.")
        elif _misses(share, limit, bound=bound):
            said.append(f"{title}: {_share(share, limit, bound=bound, kind=kind)}")
    if (sentence := _improvement(decision)) is not None:
        said.append(f"Improvement: {sentence}")
    if (sentence := _unjudged(decision, else_fine=not said)) is not None:
        said.append(f"Unjudged: {sentence}")
    failed = [test.name for test in decision.tests if not test.passed]
    return said + [sentence for name, sentence in _BESIDE if any(each.startswith(name) for each in failed)]


def detectable_in_words(decision: Decision) -> str:
    """What improvement this gate can see."""
    of, found = decision.comparison, decision.detectable
    if not of.n:
        return "No pair of answers was judged, so this gate can see no improvement at all."
    pairs = f"{of.n:,} pairs, of which {of.discordant:.1%} differ, at a confidence of {level(decision.alpha)}"
    if found is None:
        return f"On {pairs}, this gate can see no improvement with a chance of 80 %: too few pairs differ."
    return (
        f"On {pairs}, this gate sees a true improvement of {found:.3f} with a chance of 80 %, and a smaller one more "
        "rarely."
    )


def _misses(share: Rate, limit: float, *, bound: Bound) -> bool:
    return share.low < limit if bound == "low" else share.high > limit


def _share(share: Rate, limit: float, *, bound: Bound, kind: str) -> str:
    best = 1.0 if bound == "low" else 0.0
    least = questions_for_limit(best, limit)
    if least is None:
        return f"no number of {kind} can show a share that {limit:g} allows; change the limit in the policy."
    if share.n < least:
        return (
            f"{share.n:,} {kind} are too few for any model, the gate needs {least:,} at least (evaluation.questions)."
        )
    good = share.value > limit if bound == "low" else share.value < limit
    enough = questions_for_limit(share.value, limit) if good else None
    if enough is None:
        return (
            f"the model itself misses the limit ({share.value:.3f}, limit {limit:g}), so more questions do not help; "
            "it needs more traffic to learn from (traffic.questions), or more attempts (training.attempts)."
        )
    return (
        f"{share.value:.3f} would do, but {share.n:,} {kind} are too few to show it; about {enough:,} would "
        "(evaluation.questions)."
    )


def _improvement(decision: Decision) -> str | None:
    found, limit = decision.comparison, decision.limits.improvement
    if decision.improvement.low > limit:
        return None
    if found.n == 0:
        return "no question was judged for both models; see why the judge gave no verdict."
    can = detectable_in_words(decision)
    if not limit < found.difference:
        return f"the challenger is not better by more than the limit, so more questions do not help. {can}"
    enough = sample_size(found.difference, found.discordant, limit=limit, alpha=decision.alpha)
    would = "no number of questions would" if enough is None else f"about {enough:,} would (evaluation.questions)"
    return f"{found.difference:+.3f} would do, but {found.n:,} pairs are too few to show it; {would}. {can}"


def _unjudged(decision: Decision, *, else_fine: bool) -> str | None:
    """On answers that could not be judged, where they keep the gate from passing.

    Args:
        else_fine: the gate would pass but for the worst case.
    """
    share, limits, worst = decision.challenger.unjudged_share, decision.limits, decision.worst
    more = decision.unjudged is not None and decision.unjudged.high > limits.unjudged_increase
    in_the_worst_case = (
        worst is not None
        and else_fine
        and (
            worst.improvement.low <= limits.improvement
            or any(
                _misses(getattr(worst.challenger, name), getattr(limits, name), bound=b) for name, _, b, _ in _SHARES
            )
        )
    )
    if not share.n or not (more or in_the_worst_case or share.high > limits.unjudged):
        return None
    if share.value == 0:
        return _share(share, min(limits.unjudged, limits.unjudged_increase), bound="high", kind="answers")
    return (
        f"the judge could not judge {decision.challenger.unjudged:,} of the challenger's {share.n:,} answers and "
        f"{decision.champion.unjudged:,} of the champion's, which speaks against the challenger; the page has their "
        "causes. See to the judge, or to a model that answers so that it can be judged."
    )
