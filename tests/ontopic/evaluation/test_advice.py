"""What to do about a challenger that the gate refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from ontopic.config.policy import GateLimits
from ontopic.evaluation.advice import advice
from ontopic.evaluation.gate import Decision
from ontopic.statistics.pairs import Comparison, compare
from ontopic.statistics.rates import Rate, rate
from ontopic.statistics.sample_size import questions_for_limit, sample_size
from ontopic.statistics.scores import Scores

LIMITS = GateLimits(guardrail_score=0.85, over_refusal=0.1, leak=0.2, improvement=0.0)
BETTER = Comparison(difference=0.3, low=0.2, high=0.4, p_value=0.001, wins=40, losses=10, n=100)


def decision(
    score: Rate | None = None, *, over_refusal: Rate | None = None, leak: Rate | None = None, by: Comparison = BETTER
) -> Decision:
    """A gate's, whose shares are good but for what is given."""
    scores = Scores(
        guardrail_score=score or rate(980, 1000),
        over_refusal=over_refusal or rate(0, 500),
        leak=leak or rate(0, 500),
        unjudged=0,
    )
    return Decision(
        champion=scores,
        challenger=scores,
        comparison=by,
        quality=rate(0, 0),
        preference=None,
        passed=False,
        tests=[],
        limits=LIMITS,
        report=Path("gate.html"),
    )


def test_a_gate_that_passed_needs_no_advice() -> None:
    assert advice(decision()) == []


def test_questions_too_few_for_any_model_are_counted() -> None:
    assert advice(decision(rate(20, 20), over_refusal=rate(0, 10), leak=rate(0, 10))) == [
        "Guardrail score: 20 questions are too few for any model, the gate needs 22 at least (evaluation.questions).",
        "Over-refusal: 10 questions in scope are too few for any model, the gate needs 35 at least "
        "(evaluation.questions).",
        "Leak: 10 questions out of scope are too few for any model, the gate needs 16 at least (evaluation.questions).",
    ]


def test_a_share_that_is_good_enough_needs_more_questions() -> None:
    (said,) = advice(decision(rate(91, 100)))
    assert said.startswith("Guardrail score: 0.910 would do, but 100 questions are too few to show it; about 246 would")


def test_a_share_beyond_the_limit_is_the_models() -> None:
    (said,) = advice(decision(leak=rate(50, 100)))
    assert "the model itself misses the limit (0.500, limit 0.2), so more questions do not help" in said


def test_what_was_not_judged_and_what_no_number_can_show_is_said() -> None:
    (said,) = advice(decision(rate(0, 0)))
    assert "none of the questions was judged" in said
    impossible = decision(rate(50, 50)).model_copy(
        update={"limits": LIMITS.model_copy(update={"guardrail_score": 1.0})}
    )
    (said,) = advice(impossible)
    assert "no number of questions can show a share that 1 allows; change the limit" in said


@pytest.mark.parametrize(
    ("wins", "losses", "n", "expected"),
    [
        (5, 2, 20, f"+0.150 would do, but 20 pairs are too few to show it; about {sample_size(0.15, 0.35)} would"),
        (2, 5, 20, "the challenger is not better by more than the limit, so more questions do not help."),
        (0, 0, 0, "no question was judged for both models"),
    ],
)
def test_the_improvement_is_planned_by_the_paired_test(wins: int, losses: int, n: int, expected: str) -> None:
    found = (
        compare([], [])
        if not n
        else BETTER.model_copy(
            update={"difference": (wins - losses) / n, "low": -0.2, "wins": wins, "losses": losses, "n": n}
        )
    )
    (said,) = advice(decision(by=found))
    assert said.startswith(f"Improvement: {expected}")


@pytest.mark.parametrize(("share", "limit"), [(0.91, 0.85), (0.05, 0.1), (1.0, 0.85), (0.0, 0.2)])
def test_so_many_questions_show_a_share_in_four_of_five_cases(share: float, limit: float) -> None:
    from scipy.stats import binom

    n = questions_for_limit(share, limit)
    assert n is not None

    def power(n: int) -> float:
        shows = [i for i in range(n + 1) if (rate(i, n).low >= limit if share > limit else rate(i, n).high <= limit)]
        return float(binom.pmf(shows, n, share).sum())

    assert power(n) > 0.75
    assert power(round(n * 0.7)) < 0.8


def test_no_number_of_questions_shows_the_limit_itself() -> None:
    assert questions_for_limit(0.85, 0.85) is questions_for_limit(0.5, 1.0) is questions_for_limit(0.5, 0.0) is None
    with pytest.raises(ValueError, match=r"share 1\.5"):
        questions_for_limit(1.5, 0.5)
