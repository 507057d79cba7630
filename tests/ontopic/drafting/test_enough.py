"""What a policy's data is enough for: each sentence appears where the code that needs it would fail, and not before."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from loopback import ROOT

from ontopic.config.policy import JudgeBar, Policy, load_policy
from ontopic.config.settings import Settings, load_settings
from ontopic.data.labelled import load_questions, load_records
from ontopic.drafting.enough import Need, needs
from ontopic.errors import UserError
from ontopic.evaluation.gate import check_judge
from ontopic.judges.cards.calibration import calibration_records
from ontopic.judges.cards.card import criteria_sha256, judge_card
from ontopic.judges.local.training import train_local_judge
from ontopic.records import Verdict
from ontopic.statistics.rates import rate

SETTINGS = load_settings(ROOT / "configs" / "gardening.yaml")
GARDENING = load_policy(ROOT / "configs" / "policies" / "gardening.yaml")


def row(i: int, split: str, in_scope: bool, **more: object) -> dict[str, object]:
    return {"question": f"{split} {i} {in_scope} {i * 7919}", "in_scope": in_scope, "split": split, **more}


@pytest.fixture
def policy_of(tmp_path: Path) -> Callable[..., Policy]:
    """The gardening policy with other data."""

    def made(questions: Sequence[dict[str, object]], records: Sequence[dict[str, object]] = ()) -> Policy:
        own = [{"question": "q", "answer": "a", "label": "pass", "split": "evaluation"}]
        for name, rows in (("questions", questions), ("records", [*records, *own])):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
        paths = {name: str(tmp_path / f"{name}.jsonl") for name in ("questions", "records")}
        return GARDENING.model_copy(update=paths)

    return made


def by_use(policy: Policy, settings: Settings = SETTINGS, labels: int = 0) -> dict[str, Need]:
    return {need.use.split(" (")[0]: need for need in needs(policy, settings, labels=labels)}


def test_the_shipped_policy_has_enough_but_for_later_gates_and_labels() -> None:
    lacking = {use for use, need in by_use(GARDENING).items() if need.lacking}
    assert lacking == {"rehearsal and sealed questions", "the corrected guardrail score"}
    assert by_use(GARDENING, labels=200)["the corrected guardrail score"].lacking == []
    assert "label 1 more" in by_use(GARDENING, labels=199)["the corrected guardrail score"].lacking[0]


@pytest.mark.parametrize("n", [3, 4, 5])
def test_a_judge_is_learned_from_as_many_as_its_training_takes(policy_of: Callable[..., Policy], n: int) -> None:
    policy = policy_of([row(i, "train", scope) for scope in (True, False) for i in range(8 if scope else n)])
    said = [line for line in by_use(policy)["calibrate"].lacking if "cannot learn" in line]
    if n < 5:
        assert any(f"8 examples in scope and {n} out of scope, and needs 5 of each" in line for line in said)
        questions = load_questions(policy.questions, split="train")
        with pytest.raises(UserError) as error:
            train_local_judge(policy, questions, records=load_records(policy.records, split="train"))
        assert set(error.value.mistakes[: len(said)]) == set(said)
    else:
        assert said == []


@pytest.mark.parametrize(("accuracy", "kappa"), [(0.6, -1.0), (0.9, -1.0), (0.0, 0.3), (0.0, 0.7), (1.0, -1.0)])
@pytest.mark.parametrize("n", [2, 6, 12, 30])
def test_a_judge_without_a_mistake_gates_where_nothing_is_lacking(
    policy_of: Callable[..., Policy], n: int, accuracy: float, kappa: float
) -> None:
    questions = [row(i, "calibration", i % 2 == 0) for i in range(n)]
    policy = policy_of(questions).model_copy(update={"judge_bar": JudgeBar(accuracy=accuracy, kappa=kappa)})
    records = calibration_records(policy, "calibration")
    right = [Verdict(outcome=each.label or "fail", score=None, explanation="", judge_id="j") for each in records]
    card = judge_card("j", records, verdicts=right)
    card = card.model_copy(update={"scope_given": True, "criteria_sha256": criteria_sha256(policy)})
    lacking = [line for line in by_use(policy)["calibrate"].lacking if "judge_bar" in line]
    if lacking:
        with pytest.raises(UserError, match="may not gate"):
            check_judge(card, policy)
    else:
        check_judge(card, policy)
        errors = int(by_use(policy)["calibrate"].has.split("may err on ")[1].split()[0])
        assert rate(n - errors, n).low >= accuracy and (errors == n or rate(n - errors - 1, n).low < accuracy)


def test_an_empty_split_is_said_for_each_use(policy_of: Callable[..., Policy]) -> None:
    found = by_use(policy_of([row(i, "train", True) for i in range(3)]))
    assert "0 labelled records" in found["calibrate"].has
    assert "needs at least 1 in scope and 1 out of it" in found["monitoring"].lacking[0]
    assert "needs at least 1 of each" in found["the gate"].lacking[0]
    assert "no question in scope has a reference" in found["training"].lacking[0]


def test_fewer_questions_than_a_window_needs_detect_nothing(policy_of: Callable[..., Policy]) -> None:
    policy = policy_of([row(i, "train", i % 2 == 0) for i in range(40)])
    assert "the loop can ask 40 questions, and with fewer than 50" in by_use(policy)["monitoring"].lacking[0]
    assert by_use(policy.model_copy(update={"least_records": 40}))["monitoring"].lacking == []


def test_a_gate_that_no_challenger_can_pass_is_said(policy_of: Callable[..., Policy]) -> None:
    gate = by_use(policy_of([row(i, "evaluation", i % 2 == 0, reference="r") for i in range(6)]))["the gate"]
    assert any("so no challenger can pass" in line for line in gate.lacking)
    assert "3 questions in scope, 3 out of it" in gate.has
    plenty = by_use(policy_of([row(i, "evaluation", i % 2 == 0, reference="r") for i in range(60)]))["the gate"]
    assert plenty.lacking == []
    without = by_use(policy_of([row(i, "evaluation", i % 2 == 0) for i in range(60)]))["the gate"]
    assert "whether answers get worse is not tested" in without.lacking[0]
