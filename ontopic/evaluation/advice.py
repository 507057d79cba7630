"""What to do about a challenger that the gate refused."""

from __future__ import annotations

from typing import Literal

from ontopic.evaluation.gate import Decision
from ontopic.evaluation.rehearsal import REHEARSAL
from ontopic.evaluation.sealed import SEALED
from ontopic.statistics.limits import Bound
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
    said = []
    for name, title, bound, kind in _SHARES:
        share, limit = getattr(decision.challenger, name), getattr(decision.limits, name)
        if share.n == 0:
            said.append(f"{title}: none of the {kind} was judged; ask some, and see why the judge gave no verdict.")
        elif (share.low < limit) if bound == "low" else (share.high > limit):
            said.append(f"{title}: {_share(share, limit, bound=bound, kind=kind)}")
    if (sentence := _improvement(decision)) is not None:
        said.append(f"Improvement: {sentence}")
    failed = [test.name for test in decision.tests if not test.passed]
    return said + [sentence for name, sentence in _BESIDE if any(each.startswith(name) for each in failed)]


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
    if found.low > limit:
        return None
    if found.n == 0:
        return "no question was judged for both models; see why the judge gave no verdict."
    gained, discordant = found.difference - limit, (found.wins + found.losses) / found.n
    if not 0 < gained <= discordant:
        return "the challenger is not better by more than the limit, so more questions do not help."
    enough = sample_size(gained, discordant)
    return (
        f"{found.difference:+.3f} would do, but {found.n:,} pairs are too few to show it; about {enough:,} would "
        "(evaluation.questions)."
    )
