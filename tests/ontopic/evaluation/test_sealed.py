"""What the sealed questions say of a challenger that has passed everything else."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluations import evaluated, gate_card, gate_text, judged, unjudged

from ontopic.config.policy import Policy
from ontopic.evaluation.gate import Decision, decide
from ontopic.evaluation.sealed import SEALED, with_sealed


@pytest.fixture
def decision(banking: Policy, tmp_path: Path) -> Decision:
    card = gate_card(banking)
    sides = evaluated(judged(200, 60)), evaluated(judged(200, 6))
    return decide(*sides, winners=[], policy=banking, card=card, report=tmp_path / "gate.html")


@pytest.mark.parametrize(("failing", "passes"), [(6, True), (20, True), (36, False), (60, False), (80, False)])
def test_a_gain_that_is_not_found_again_on_sealed_questions_is_refused(
    decision: Decision, failing: int, passes: bool
) -> None:
    """Of 27 points, on the drawn questions, where the champion fails 60 of 200."""
    assert decision.passed and decision.sealed is None and decision.comparison.difference == 0.27
    verdicts = [judged(200, n).verdicts for n in (60, failing)]
    found = with_sealed(decision, champion=verdicts[0], challenger=verdicts[1], opening=1)
    assert found.passed is passes
    test = found.tests[-1]
    assert test.name.startswith(SEALED) and test.passed is passes and "opening 1" in test.description
    assert found.sealed is not None and found.sealed.n == 200
    assert found.tests[:-1] == decision.tests


def test_what_is_unjudged_speaks_against_the_challenger(decision: Decision) -> None:
    champion, challenger, nothing = judged(200, 60).verdicts, judged(200, 6).verdicts, unjudged(200)
    lost = with_sealed(decision, champion=champion, challenger=[*challenger[:140], *nothing[140:]], opening=1)
    assert not lost.passed and lost.sealed is not None and (lost.sealed.n, lost.sealed.losses) == (200, 60)
    lenient = with_sealed(decision, champion=[*nothing[:60], *champion[60:]], challenger=challenger, opening=1)
    assert not lenient.passed and lenient.sealed is not None and lenient.sealed.wins == 0


def test_it_can_only_refuse(decision: Decision) -> None:
    refused = decision.model_copy(update={"passed": False})
    verdicts = [judged(200, n).verdicts for n in (60, 0)]
    assert not with_sealed(refused, champion=verdicts[0], challenger=verdicts[1], opening=1).passed


def test_the_page_shows_it(decision: Decision) -> None:
    verdicts = [judged(200, n).verdicts for n in (60, 6)]
    found = with_sealed(decision, champion=verdicts[0], challenger=verdicts[1], opening=2)
    page = gate_text(found, evaluated(judged(200, 60)), evaluated(judged(200, 6)))
    assert SEALED in page and "opening 2" in page and "they were not opened" not in page
