"""The gate lets no judge decide whose card is weak, stale or another's."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from qualities import quality_of
from values import replace

from ontopic.config.policy import JudgeBar, Policy
from ontopic.errors import UserError
from ontopic.evaluation.gate import check_judge, decide
from ontopic.judges.cards.card import JudgeCard, criteria_sha256
from ontopic.records import Record, Verdict
from ontopic.reports.metrics import verdict_frame
from ontopic.statistics.rates import Rate, rate


@pytest.fixture
def card(banking: Policy) -> JudgeCard:
    return JudgeCard(
        judge_id="judge-1",
        accuracy=rate(960, 1000),
        kappa=Rate(value=0.9, low=0.87, high=0.93, n=1000),
        sensitivity=rate(480, 500),
        specificity=rate(480, 500),
        unjudged=0,
        criteria_sha256=criteria_sha256(banking),
    )


def frame(passing: int, judge_id: str = "judge-1") -> pd.DataFrame:
    records = [Record(question=f"Question {i}?", answer="An answer.", in_scope=i % 2 == 0) for i in range(100)]
    verdicts = [
        Verdict(
            outcome="pass" if i < passing else "fail",
            score=0.9,
            explanation="",
            judge_id=judge_id,
            in_scope=i % 2 == 0,
            declined=(i % 2 == 0) != (i < passing),
        )
        for i in range(100)
    ]
    return verdict_frame(records, verdicts)


def test_a_good_judge_may_decide(card: JudgeCard, banking: Policy, tmp_path: Path) -> None:
    decision = decide(
        "Gate",
        frame(40),
        challenger=frame(97),
        champion_quality=quality_of(),
        challenger_quality=quality_of(),
        winners=[],
        policy=banking,
        card=card,
        report=tmp_path / "gate.html",
    )
    assert decision.passed
    assert decision.limits == banking.gate
    assert decision.as_dict()["quality"] == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 40}


@pytest.mark.parametrize("name", ["accuracy", "kappa"])
def test_a_judge_under_the_bar_may_not_gate(name: str, card: JudgeCard, banking: Policy, tmp_path: Path) -> None:
    # The value is over the bar; its lower bound is not.
    bar = JudgeBar(accuracy=0.0, kappa=-1.0).model_copy(update={name: getattr(card, name).low + 0.005})
    policy = banking.model_copy(update={"judge_bar": bar})
    page = tmp_path / "gate.html"
    with pytest.raises(UserError, match=rf"judge judge-1 may not gate: its {name} is 0\.9.*`python run.py label`"):
        decide(
            "Gate",
            frame(40),
            challenger=frame(97),
            champion_quality=quality_of(),
            challenger_quality=quality_of(),
            winners=[],
            policy=policy,
            card=card,
            report=page,
        )
    assert not page.exists()


def test_a_judge_that_judged_nothing_may_not_gate(card: JudgeCard, banking: Policy) -> None:
    with pytest.raises(UserError, match="its accuracy is no records"):
        check_judge(replace(card, accuracy=rate(0, 0)), banking)


def test_a_card_from_before_the_policy_changed_is_stale(card: JudgeCard, banking: Policy) -> None:
    changed = banking.model_copy(update={"definition": "Banking is cash machines alone."})
    with pytest.raises(UserError, match="card of judge judge-1 is stale: policy 'banking' has changed"):
        check_judge(card, changed)
    check_judge(card, banking.model_copy(update={"alert_threshold": 0.5}))  # no judge goes by it


@pytest.mark.parametrize("who", ["champion", "challenger"])
def test_a_card_of_another_judge_than_the_verdicts_is_stale(
    who: str, card: JudgeCard, banking: Policy, tmp_path: Path
) -> None:
    frames = {"champion": frame(40), "challenger": frame(97)} | {who: frame(60, "judge-2")}
    with pytest.raises(UserError, match="stale: these verdicts are by judge-2, whose template, model or settings"):
        decide(
            "Gate",
            **frames,
            champion_quality=quality_of(),
            challenger_quality=quality_of(),
            winners=[],
            policy=banking,
            card=card,
            report=tmp_path / "gate.html",
        )
