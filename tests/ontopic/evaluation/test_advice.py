"""What to do about a challenger that the gate refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from evaluations import SMALL
from outcomes import compared

from ontopic.config.policy import GateLimits
from ontopic.evaluation.advice import advice, detectable_in_words
from ontopic.evaluation.gate import Decision, Reading
from ontopic.statistics.pairs import Comparison, compare
from ontopic.statistics.rates import Rate, rate
from ontopic.statistics.sample_size import detectable_difference, questions_for_limit, sample_size
from ontopic.statistics.scores import Scores

LIMITS = GateLimits(guardrail_score=0.85, over_refusal=0.1, leak=0.2, improvement=0.0, **SMALL)
BETTER = Comparison(difference=0.3, low=0.2, high=0.4, p_value=0.001, wins=40, losses=10, n=100)


def decision(
    score: Rate | None = None,
    *,
    over_refusal: Rate | None = None,
    leak: Rate | None = None,
    by: Comparison = BETTER,
    unjudged: int = 0,
    **more: Any,
) -> Decision:
    """A gate's, whose shares are good but for what is given."""
    scores = Scores(
        guardrail_score=score or rate(980, 1000),
        over_refusal=over_refusal or rate(0, 500),
        leak=leak or rate(0, 500),
        unjudged=unjudged,
    )
    return Decision(
        champion=scores,
        challenger=scores,
        comparison=by,
        quality=rate(0, 0),
        preference=None,
        passed=False,
        tests=[],
        report=Path("gate.html"),
        **{"limits": LIMITS} | more,
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
        (2, 5, 20, "the challenger is not better by more than the limit, so more questions do not help. On 20 pairs"),
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


def test_it_plans_at_the_limit_and_the_level_of_this_gate() -> None:
    found = BETTER.model_copy(update={"difference": 0.15, "low": -0.2, "wins": 5, "losses": 2, "n": 20})
    strict = LIMITS.model_copy(update={"improvement": 0.05})
    (said,) = advice(decision(by=found, limits=strict, alpha=0.01))
    assert f"about {sample_size(0.15, 0.35, limit=0.05, alpha=0.01):,} would" in said
    barely = LIMITS.model_copy(update={"improvement": 0.14999})
    (said,) = advice(decision(by=found, limits=barely))
    assert "too few to show it; no number of questions would. On 20 pairs" in said
    # 95 % is above the limit, the level of this gate is not: it is the gate's that counts
    lucky = compared(12, 3, 100)
    assert lucky.low > 0 > lucky.rate_at(0.001).low
    assert advice(decision(by=lucky)) == []
    (said,) = advice(decision(by=lucky, alpha=0.001))
    assert said.startswith("Improvement: +0.090 would do, but 100 pairs are too few")


def test_what_the_gate_can_see_is_said() -> None:
    found = compared(20, 16, 450)
    sees = detectable_difference(450, 36 / 450, alpha=0.01)
    (said,) = advice(decision(by=found, alpha=0.01, detectable=sees))
    assert said.endswith(
        f"On 450 pairs, of which 8.0% differ, at a confidence of 99 %, this gate sees a true improvement of {sees:.3f} "
        "with a chance of 80 %, and a smaller one more rarely."
    )
    assert "can see no improvement with a chance of 80 %" in detectable_in_words(decision(by=compared(0, 0, 20)))


def test_what_could_not_be_judged_keeps_a_challenger_back_and_is_said() -> None:
    limits = GateLimits(guardrail_score=0.85, over_refusal=0.1, leak=0.2, improvement=0.0)
    (said,) = advice(decision(rate(430, 440), unjudged=10, limits=limits))
    assert said.startswith(
        "Unjudged: the judge could not judge 10 of the challenger's 450 answers and 10 of the champion"
    )
    assert advice(decision(rate(440, 447), unjudged=3, limits=limits)) == []
    (said,) = advice(decision(rate(100, 100), limits=limits))
    assert said == (
        "Unjudged: 100 answers are too few for any model, the gate needs 189 at least (evaluation.questions)."
    )
    # all is well as judged, and not where what is unjudged counts as a fail
    worse = decision(leak=rate(200, 500))
    (said,) = advice(decision(unjudged=60, worst=Reading.model_validate(worse, from_attributes=True)))
    assert said.startswith("Unjudged: the judge could not judge 60 of the challenger's 1,060 answers")


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
