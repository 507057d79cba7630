"""What the judge could not judge speaks against the challenger, at whatever share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluations import SMALL, evaluated, gate_card, judged, unjudged, without_verdicts

from ontopic.config.policy import GateLimits, Policy
from ontopic.evaluation.gate import Decision, Evaluated, decide
from ontopic.judges.cards.card import JudgeCard
from ontopic.records import Judged
from ontopic.statistics.rates import rate
from ontopic.statistics.sample_size import detectable_difference

N = 450


@pytest.fixture
def card(banking: Policy) -> JudgeCard:
    return gate_card(banking)


def gate(champion: Judged, challenger: Judged, *, card: JudgeCard, policy: Policy, alpha: float = 0.05) -> Decision:
    sides: list[Evaluated] = [evaluated(champion), evaluated(challenger)]
    return decide(*sides, winners=[], policy=policy, card=card, report=Path("gate.html"), alpha=alpha)


def failing(decision: Decision) -> list[str]:
    return [test.name.split(":")[0] for test in decision.tests if not test.passed]


def test_a_challenger_that_is_hardly_judged_is_refused(card: JudgeCard, banking: Policy) -> None:
    """400 of 450 unjudged and 50 passes: as judged, all is well."""
    challenger = without_verdicts(judged(N, 0, "m-2"), lambda i: i >= 50)
    decision = gate(judged(N, 68), challenger, card=card, policy=banking)
    assert not decision.passed
    assert (decision.champion.unjudged, decision.challenger.unjudged) == (0, 400)
    assert failing(decision) == [
        "Unjudged",
        "Unjudged, challenger minus champion",
        "Worst case, Guardrail score",
        "Worst case, Improvement, challenger minus champion",
        "Worst case, Over-refusal",
        "Worst case, Leak",
    ]
    assert decision.worst is not None and decision.unjudged is not None
    assert decision.worst.challenger.guardrail_score == rate(50, N)
    assert decision.worst.comparison.n == N
    assert (decision.unjudged.wins, decision.unjudged.losses) == (400, 0)


@pytest.mark.parametrize(("odd", "fails"), [(0, "Worst case, Over-refusal"), (1, "Worst case, Leak")])
def test_what_is_unjudged_in_scope_was_declined_and_out_of_it_answered(
    odd: int, fails: str, card: JudgeCard, banking: Policy
) -> None:
    policy = banking.model_copy(update={"gate": banking.gate.model_copy(update=SMALL)})
    challenger = without_verdicts(judged(N, 0, "m-2"), lambda i: i % 2 == odd and i < 90)
    assert failing(gate(judged(N, 200), challenger, card=card, policy=policy)) == [fails]


def test_the_champions_unjudged_answers_count_as_passes(card: JudgeCard, banking: Policy) -> None:
    champion = without_verdicts(judged(N, 68), lambda i: i < 68)  # all its failures
    decision = gate(champion, judged(N, 20, "m-2"), card=card, policy=banking)
    assert decision.worst is not None
    assert decision.worst.champion.guardrail_score == rate(N, N)
    assert (decision.worst.comparison.wins, decision.worst.comparison.losses) == (0, 20)
    assert failing(decision) == [f"{case}Improvement, challenger minus champion" for case in ("", "Worst case, ")]


@pytest.mark.parametrize(("unjudged_answers", "passes"), [(0, True), (2, True), (3, True), (4, False), (90, False)])
def test_the_default_gate_lets_3_of_450_go_unjudged(
    unjudged_answers: int, passes: bool, card: JudgeCard, banking: Policy
) -> None:
    challenger = without_verdicts(judged(N, 20, "m-2"), lambda i: i >= N - unjudged_answers)
    decision = gate(judged(N, 90), challenger, card=card, policy=banking)
    assert decision.passed is passes
    assert (decision.worst is None) is (unjudged_answers == 0)
    test = {test.name.split(":")[0]: test for test in decision.tests}["Unjudged"]
    assert test.passed is passes and "n = 450" in test.description
    assert GateLimits(guardrail_score=0, over_refusal=0, leak=0, improvement=0).unjudged == banking.gate.unjudged


def test_a_model_that_is_judged_less_than_the_champion_is_refused_where_many_may_go_unjudged(
    card: JudgeCard, banking: Policy
) -> None:
    policy = banking.model_copy(update={"gate": banking.gate.model_copy(update={"unjudged": 0.1})})
    champion = without_verdicts(judged(N, 120), lambda i: i >= N - 20)
    same = without_verdicts(judged(N, 0, "m-2"), lambda i: i >= N - 20)
    more = without_verdicts(judged(N, 0, "m-2"), lambda i: i >= N - 27)
    assert failing(gate(champion, same, card=card, policy=policy)) == []
    assert failing(gate(champion, more, card=card, policy=policy)) == ["Unjudged, challenger minus champion"]


def test_an_unjudged_preference_is_lost_in_the_worst_case(card: JudgeCard, banking: Policy) -> None:
    winners = ["a"] * 30 + ["tie"] * 60 + ["unjudged"] * 60
    sides = [evaluated(judged(N, 90)), evaluated(judged(N, 0, "m-2"))]
    decision = decide(*sides, winners=winners, policy=banking, card=card, report=Path("gate.html"))
    assert failing(decision) == ["Worst case, Preferred answers, challenger minus champion"]
    assert decision.preference is not None and decision.preference.n == 90
    assert decision.worst is not None and decision.worst.preference is not None
    assert (decision.worst.preference.n, decision.worst.preference.value) == (150, -0.2)


def test_nothing_judged_at_all_is_refused_in_both_readings(card: JudgeCard, banking: Policy) -> None:
    nothing = Judged(records=judged(N, 0).records, verdicts=unjudged(N))
    decision = gate(nothing, nothing, card=card, policy=banking)
    assert {"Guardrail score", "Worst case, Guardrail score", "Unjudged"} <= set(failing(decision))
    assert decision.detectable is None


def test_the_improvement_is_held_at_the_level_of_this_look(card: JudgeCard, banking: Policy) -> None:
    champion, challenger = judged(N, 30), judged(N, 20, "m-2")
    usual, strict = (gate(champion, challenger, card=card, policy=banking, alpha=a) for a in (0.05, 0.0005))
    assert usual.passed and failing(strict) == ["Improvement, challenger minus champion"]
    assert (usual.alpha, strict.alpha) == (0.05, 0.0005)
    assert strict.comparison == usual.comparison  # described at 95 %
    assert strict.improvement.low < usual.improvement.low == usual.comparison.low
    said = {test.name.split(":")[0]: test.description for test in strict.tests}
    assert "99.95 % interval" in said["Improvement, challenger minus champion"]
    assert "95 % interval" in said["Guardrail score"]
    assert usual.detectable == detectable_difference(N, 10 / N)
    assert strict.detectable == detectable_difference(N, 10 / N, alpha=0.0005)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_worse_challenger_whose_failures_come_back_unjudged_is_not_promoted(
    share: float, card: JudgeCard, banking: Policy
) -> None:
    """Truly 0.80 against 0.85; `benchmarks/gate.py` has more runs and shares. Limits that forbid no unjudged answer."""
    policy = banking.model_copy(update={"gate": banking.gate.model_copy(update=SMALL)})
    chance = np.random.default_rng(int(share * 10))
    all_pass, all_fail = (judged(N, failing) for failing in (0, N))

    def side(truth: float, lost: float) -> Judged:
        fails, is_lost = chance.random(N) >= truth, chance.random(N) < lost
        rows = [(all_fail if failed else all_pass).verdicts[i] for i, failed in enumerate(fails)]
        return without_verdicts(Judged(records=all_pass.records, verdicts=rows), lambda i: bool(fails[i] & is_lost[i]))

    promoted = sum(gate(side(0.85, 0.0), side(0.80, share), card=card, policy=policy).passed for _ in range(40))
    assert promoted == 0
