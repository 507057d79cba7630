"""What a person's labels of a gate's answers say of the judge, and what is said without them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from evaluations import evaluated, gate_card, gate_text, judged
from values import replace

from ontopic.config.policy import GateLimits, Policy
from ontopic.data.labelled import SCOPE_BY_JUDGE, LabelledRecord
from ontopic.evaluation.answers import Evaluation
from ontopic.evaluation.discordant import GatePairs, Pair, pairs_of
from ontopic.evaluation.gate import JUDGE_ERRORS, GateTest, decide
from ontopic.evaluation.judge_errors import HOW, JudgeErrors, judge_errors, tipping_specificity
from ontopic.judges.cards.card import JudgeCard
from ontopic.records import Verdict
from ontopic.statistics.pairs import compare
from ontopic.statistics.rates import rate

LIMITS = GateLimits(guardrail_score=0.8, over_refusal=0.2, leak=0.2, improvement=0.0)
Labeller = Callable[[Pair], tuple[bool, bool]]
"""The true label of champion's and challenger's answer."""


@pytest.fixture
def card(banking: Policy) -> JudgeCard:
    return replace(gate_card(banking), sensitivity=rate(490, 500), specificity=rate(460, 500))


def sides(n: int = 450, champion: int = 90, challenger: int = 20) -> tuple[Evaluation, Evaluation]:
    return evaluated(judged(n, champion, "1")).evaluation, evaluated(judged(n, challenger, "2")).evaluation


def labels(pairs: GatePairs, truth: Labeller, n: int = 60) -> list[LabelledRecord]:
    """A person's labels of ``n`` pairs of either kind."""
    rows = []
    for pair in (*pairs.discordant[:n], *pairs.agreeing[:n]):
        for answer, passes in zip((pair.champion, pair.challenger), truth(pair), strict=True):
            said = "pass" if passes else "fail"
            rows.append(LabelledRecord.model_validate({"question": pair.question, "answer": answer, "label": said}))
    return rows


def found(card: JudgeCard, truth: Labeller | None = None, *, n: int = 60, limits: GateLimits = LIMITS) -> JudgeErrors:
    champion, challenger = sides()
    pairs = pairs_of(champion, challenger, registered_model="m")
    said = labels(pairs, truth, n) if truth else []
    return judge_errors(champion, challenger, labels=said, earlier=[], card=card, limits=limits, registered_model="m")


def as_judged(pair: Pair) -> tuple[bool, bool]:
    return pair.passes


def overlooked(pair: Pair) -> tuple[bool, bool]:
    """What the judge takes for wins, the challenger has failed: the judge is right on the champion alone."""
    return (pair.passes[0], pair.passes[1] and not pair.differs)


def test_without_labels_it_is_said_what_is_not_known_and_nothing_stands_in_the_way(card: JudgeCard) -> None:
    errors = found(card)
    passed, said = errors.verdict(0.0)
    assert passed and errors.found is None
    assert "were not compared by a person: of 60 discordant pairs 0 are labelled" in said
    assert f"label them with `{HOW}`" in said
    assert errors.tipping is not None
    assert f"if the judge failed only {errors.tipping:.0%} of the challenger's failures or fewer" in said
    assert "its card it fails 92%" in said


def test_a_policy_can_ask_for_labels_before_a_promotion(card: JudgeCard) -> None:
    limits = replace(LIMITS, discordant_labels=40)
    passed, said = found(card, limits=limits).verdict(0.0)
    assert not passed and "of 40 discordant pairs 0 are labelled" in said and HOW in said
    assert found(card, as_judged, n=39, limits=limits).verdict(0.0)[0] is False
    assert found(card, as_judged, n=40, limits=limits).verdict(0.0)[0] is True


def test_few_labels_do_not_count_yet(card: JudgeCard) -> None:
    errors = found(card, overlooked, n=10)
    assert errors.found is None and errors.verdict(0.0)[0]
    assert (errors.labelled_discordant, errors.labelled_agreeing) == (10, 10)


def test_labels_that_confirm_the_judge_let_it_pass(card: JudgeCard) -> None:
    errors = found(card, as_judged)
    passed, said = errors.verdict(0.0)
    assert passed and errors.found and not errors.found.differ
    assert errors.found.improvement.value == pytest.approx(70 / 450)
    assert "corrected by 60 labelled pairs with different verdicts and 60 with the same" in said
    assert "above 0 " in said


def test_where_the_judge_overlooks_the_challengers_failures_it_refuses_and_says_what_to_label(
    card: JudgeCard,
) -> None:
    errors = found(card, overlooked)
    passed, said = errors.verdict(0.0)
    assert not passed and errors.found and errors.found.differ
    assert "60 discordant pairs are labelled: label 10 more with" in said
    assert f"`{HOW} -n 70`" in said
    assert "specificity" in said
    assert errors.found.improvement.value == pytest.approx(0.0)


def test_once_all_are_labelled_people_decide_and_not_the_judge(card: JudgeCard) -> None:
    def truth(pair: Pair) -> tuple[bool, bool]:  # the judge errs on the challenger alone, which is better all the same
        return (pair.passes[0], pair.passes[1] and not (pair.differs and pair.order < "4"))

    errors = found(card, truth, n=70)
    assert errors.left == 0 and errors.found and errors.found.differ
    passed, said = errors.verdict(0.0)
    assert passed and "more with" not in said
    assert errors.verdict(0.5)[0] is False
    assert not found(card, overlooked, n=70).verdict(0.0)[0]


def test_labels_of_an_earlier_gate_of_the_same_models_count(card: JudgeCard) -> None:
    champion, challenger = sides()
    other = [
        each.model_copy(update={"records": [replace(r, question="Other " + r.question) for r in each.records]})
        for each in (champion, challenger)
    ]
    before = pairs_of(other[0], other[1], registered_model="m")
    said = labels(before, as_judged)

    def counted(earlier: list[GatePairs]) -> int:
        return judge_errors(
            champion, challenger, labels=said, earlier=earlier, card=card, limits=LIMITS, registered_model="m"
        ).labelled_discordant

    assert counted([before]) == 60
    assert counted([before, before]) == 60
    assert counted([]) == 0
    for change in ({"champion": "0"}, {"challenger": "9"}, {"judge_id": "judge-2"}, {"registered_model": "n"}):
        assert counted([before.model_copy(update=change)]) == 0


def test_the_tipping_point_is_where_the_improvement_is_just_not_shown(card: JudgeCard) -> None:
    champion, challenger = sides()
    tipping = tipping_specificity(champion.verdicts, challenger.verdicts, card=card, limit=0.0)
    assert tipping is not None and 0.02 < tipping < card.specificity.value
    passes, sensitivity = 430 / 450, card.sensitivity.value
    truth = (passes - (1 - tipping)) / (sensitivity + tipping - 1)
    added = (1 - truth) * (card.specificity.value - tipping)
    assert added == pytest.approx(compare(champion.verdicts, challenger.verdicts).low)
    nearly = sides(champion=24)
    worse = tipping_specificity(nearly[0].verdicts, nearly[1].verdicts, card=card, limit=0.0)
    assert worse is None or worse > tipping
    assert tipping_specificity(challenger.verdicts, champion.verdicts, card=card, limit=0.0) is None
    never: list[Verdict] = []
    assert tipping_specificity(never, never, card=card, limit=0.0) is None


def test_the_gate_tests_it_and_its_page_shows_it(card: JudgeCard, banking: Policy, tmp_path: Path) -> None:
    policy = banking.model_copy(update={"gate": LIMITS})
    before, after = evaluated(judged(450, 90, "1")), evaluated(judged(450, 20, "2"))

    def tested(errors: JudgeErrors) -> tuple[bool, GateTest, str]:
        decision = decide(
            before, after, winners=[], policy=policy, card=card, report=tmp_path / "gate.html", judge_errors=errors
        )
        (test,) = (test for test in decision.tests if test.name == JUDGE_ERRORS)
        assert decision.judge_errors == errors
        assert type(decision).model_validate_json(decision.model_dump_json()).judge_errors == errors
        return decision.passed, test, gate_text(decision, before, after)

    passed, test, page = tested(found(card, overlooked))
    assert (passed, test.passed) == (False, False)
    assert "label 10 more" in page and "people's labels" in page and "p that they are the same" in page
    passed, test, page = tested(found(card))
    assert (passed, test.passed) == (True, True)
    assert "were not compared by a person" in page


def test_the_page_says_whose_opinion_the_scope_of_traffic_is(card: JudgeCard, banking: Policy, tmp_path: Path) -> None:
    before, after = evaluated(judged(60, 30, "1")), evaluated(judged(60, 2, "2"))
    questions = [
        replace(question, kind=SCOPE_BY_JUDGE if i < 9 else "")
        for i, question in enumerate(before.evaluation.questions)
    ]
    before = replace(before, evaluation=replace(before.evaluation, questions=questions))
    decision = decide(before, after, winners=[], policy=banking, card=card, report=tmp_path / "gate.html")
    page = gate_text(decision, before, after)
    assert "9 of the 60 questions come from traffic" in page.replace("\\", "")
