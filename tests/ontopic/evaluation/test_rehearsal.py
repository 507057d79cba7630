"""The rehearsal on calibration questions: who is not ahead there takes no look."""

from __future__ import annotations

import pytest
from evaluations import evaluated, judged
from loopback import ROOT

from ontopic.config.policy import GateLimits, Policy, load_policy
from ontopic.data.sample import in_and_out, sampled_questions
from ontopic.evaluation.rehearsal import rehearsal_in_words, rehearsal_sample, rehearsed

LIMITS = GateLimits(guardrail_score=0.8, over_refusal=0.2, leak=0.2, improvement=0.0)


@pytest.mark.parametrize(("failing", "passes"), [(40, False), (38, True), (44, False), (10, True)])
def test_only_who_is_ahead_may_take_a_look(failing: int, passes: bool) -> None:
    sides = [evaluated(judged(400, n)).evaluation for n in (40, failing)]
    found = rehearsed(*sides, limits=LIMITS)
    assert found.passed is passes and "30 % interval" in found.description


def test_it_asks_the_calibration_split_alone_and_a_small_one_not_at_all(banking: Policy) -> None:
    sample = rehearsal_sample(banking.questions)
    assert sample is not None and in_and_out(sampled_questions(sample)) == (264, 264)
    assert {question.split for question in sampled_questions(sample)} == {"calibration"}
    assert "not ahead on 528 questions" in rehearsal_in_words(banking.questions)
    gardening = load_policy(ROOT / "configs/policies/gardening.yaml").questions
    assert rehearsal_sample(gardening) is None
    assert "takes 200 questions" in rehearsal_in_words(gardening)
