"""What the sealed questions say of a challenger that has passed everything else."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluations import evaluated, judged, unjudged

from ontopic.config.policy import Policy
from ontopic.evaluation.gate import Decision, decide
from ontopic.evaluation.gate_page import write_gate_page
from ontopic.evaluation.looks import alpha_at
from ontopic.evaluation.sealed import MARGIN, SEALED, with_sealed
from ontopic.judges.cards.card import JudgeCard, criteria_sha256
from ontopic.statistics.rates import rate


@pytest.fixture
def decision(banking: Policy, tmp_path: Path) -> Decision:
    share = rate(99, 100)
    card = JudgeCard(
        judge_id="judge-1",
        accuracy=share,
        kappa=share,
        sensitivity=share,
        specificity=share,
        unjudged=0,
        criteria_sha256=criteria_sha256(banking),
    )
    sides = evaluated(judged(200, 60)), evaluated(judged(200, 6))
    return decide(*sides, winners=[], policy=banking, card=card, report=tmp_path / "gate.html")


@pytest.mark.parametrize(("failing", "passes"), [(20, True), (24, True), (34, False), (80, False)])
def test_a_challenger_that_is_worse_on_sealed_questions_is_refused(
    decision: Decision, failing: int, passes: bool
) -> None:
    assert decision.passed and decision.sealed is None
    verdicts = [judged(220, n).verdicts for n in (24, failing)]
    found = with_sealed(decision, champion=verdicts[0], challenger=verdicts[1], opening=1, alpha=alpha_at(1))
    assert found.passed is passes
    test = found.tests[-1]
    assert test.name.startswith(SEALED) and test.passed is passes
    assert f"above {decision.limits.improvement - MARGIN:g}" in test.name and "opening 1" in test.description
    assert found.sealed is not None and found.sealed.n == 220
    assert found.tests[:-1] == decision.tests


def test_what_is_unjudged_speaks_against_the_challenger(decision: Decision) -> None:
    champion, nothing = judged(220, 24).verdicts, unjudged(220)
    lost = with_sealed(decision, champion=champion, challenger=[*champion[:190], *nothing[190:]], opening=1, alpha=0.05)
    assert not lost.passed and lost.sealed is not None and (lost.sealed.n, lost.sealed.losses) == (220, 30)
    held = with_sealed(decision, champion=[*champion[:190], *nothing[190:]], challenger=champion, opening=1, alpha=0.05)
    assert held.passed


def test_a_later_opening_asks_for_more(decision: Decision) -> None:
    champion, challenger = judged(220, 24).verdicts, judged(220, 28).verdicts
    passed = [
        with_sealed(decision, champion=champion, challenger=challenger, opening=k, alpha=alpha_at(k)).passed
        for k in (1, 20)
    ]
    assert passed == [True, False]


def test_the_page_shows_it(decision: Decision) -> None:
    verdicts = judged(220, 24).verdicts
    found = with_sealed(decision, champion=verdicts, challenger=verdicts, opening=2, alpha=alpha_at(2))
    write_gate_page("Gate", found, champion=evaluated(judged(200, 60)), challenger=evaluated(judged(200, 6)))
    assert SEALED in found.report.read_text() and "opening 2" in found.report.read_text()
