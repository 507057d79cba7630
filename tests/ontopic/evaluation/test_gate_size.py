"""How many questions the gate needs: against the intervals that it reads."""

from __future__ import annotations

import pytest
from outcomes import compared

from ontopic.config.policy import GateLimits
from ontopic.evaluation.gate_size import too_few
from ontopic.statistics.rates import rate


def limits(guardrail_score: float, over_refusal: float, leak: float, unjudged: float = 1.0) -> GateLimits:
    shares = {"guardrail_score": guardrail_score, "over_refusal": over_refusal, "leak": leak, "unjudged": unjudged}
    return GateLimits(**shares, improvement=0, unjudged_increase=unjudged)


@pytest.mark.parametrize("limit", [0.02, 0.05, 0.1, 0.2, 0.35])
def test_one_question_fewer_meets_no_limit_and_so_many_do(limit: float) -> None:
    need = next(n for n in range(1, 1000) if rate(0, n).high <= limit)
    of_leak = limits(0, 1, limit)
    assert too_few(of_leak, in_scope=0, out_of_scope=need) == []
    assert too_few(of_leak, in_scope=0, out_of_scope=need - 1) == [
        f"leak: the gate asks {need - 1} questions out of scope, and a challenger without a mistake needs {need} for "
        f"the limit of {limit:g}"
    ]
    of_score = limits(1 - limit, 1, 1)
    assert too_few(of_score, in_scope=need - 1, out_of_scope=1) == []
    assert len(too_few(of_score, in_scope=need - 2, out_of_scope=1)) == 1
    of_unjudged = limits(0, 1, 1, limit)
    assert compared(0, 0, need).high <= limit < compared(0, 0, need - 1).high
    assert too_few(of_unjudged, in_scope=need - 1, out_of_scope=1) == []
    said = too_few(of_unjudged, in_scope=need - 2, out_of_scope=1)
    assert [line.split(":")[0] for line in said] == ["unjudged", "unjudged_increase"]


def test_all_that_lack_are_named_and_a_limit_of_nothing_is_never_met() -> None:
    said = too_few(limits(0.9, 0.1, 0), in_scope=3, out_of_scope=4)
    assert [line.split(":")[0] for line in said] == ["guardrail_score", "over_refusal", "leak"]
    assert said[2] == "leak: no number of questions out of scope is enough for the limit of 0"
