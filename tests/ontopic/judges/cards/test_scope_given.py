"""A judge has two cards: on traffic it is not told whether a question is in scope, in the gate it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
import pytest

from ontopic.config.policy import JudgeBar, Policy
from ontopic.config.settings import JudgeChoice, LocalJudgeSettings
from ontopic.endpoint.account import Account
from ontopic.errors import UserError
from ontopic.judges.cards import comparison
from ontopic.judges.cards.calibration import calibration_records, card_of, gate_card_of, kept_or_measured
from ontopic.judges.cards.card import JudgeCard, JudgeCards
from ontopic.judges.cards.comparison import compare_judges, gate_in_words
from ontopic.progress import Advance
from ontopic.records import Record, Verdict
from ontopic.registry.tracking import open_tracking
from ontopic.state.workspace import Workspace, open_workspace


@dataclass
class ScopeJudge:
    """Right wherever it is told the scope; takes every question to be in scope where it is not."""

    id: str = "scope/1"
    account: Account = field(default_factory=Account)
    told: list[bool | None] = field(default_factory=list)

    def judge(self, records: Sequence[Record], advance: Advance | None = None) -> list[Verdict]:
        self.told += [record.in_scope for record in records]
        said = []
        for record in records:
            declined, in_scope = record.answer.startswith("Sorry"), record.in_scope is not False
            outcome = "pass" if declined != in_scope else "fail"
            said.append(Verdict(outcome=outcome, score=None, explanation="", judge_id=self.id, in_scope=in_scope))
        return said


@pytest.fixture
def policy(banking: Policy, tmp_path: Path) -> Policy:
    """Twelve questions in scope and twelve out of it, and a record of which no scope is known."""
    questions = [
        {"question": f"Question {i}?", "in_scope": i % 2 == 0, "reference": "Yes." if i % 2 == 0 else None}
        for i in range(24)
    ]
    (tmp_path / "questions.jsonl").write_text(
        "".join(json.dumps(row | {"split": "calibration"}) + "\n" for row in questions)
    )
    record = {"question": "And then?", "answer": "Sorry, no.", "label": "fail", "split": "calibration"}
    (tmp_path / "records.jsonl").write_text(json.dumps(record) + "\n")
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("records", "questions")}
    return banking.model_copy(update=files | {"refusal": "Sorry, only banking."})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / "state")


def test_on_traffic_the_judge_is_told_no_scope_and_in_the_gate_it_is(policy: Policy, workspace: Workspace) -> None:
    judge = ScopeJudge()
    traffic = card_of(judge, policy, workspace=workspace)
    assert set(judge.told) == {None} and len(judge.told) == traffic.n == 37
    assert not traffic.scope_given and traffic.sensitivity.value == pytest.approx(0.5)  # no refusal passes
    judge.told.clear()
    gate = gate_card_of(judge, policy, workspace=workspace)
    records = calibration_records(policy, "calibration")
    assert judge.told == [record.in_scope for record in records if record.in_scope is not None]
    assert gate.scope_given and (gate.n, gate.accuracy.value) == (36, 1.0)


def test_each_card_is_kept_by_itself(policy: Policy, workspace: Workspace) -> None:
    judge = ScopeJudge()
    cards = [card_of(judge, policy, workspace=workspace), gate_card_of(judge, policy, workspace=workspace)]
    judge.told.clear()
    assert [card_of(judge, policy, workspace=workspace), gate_card_of(judge, policy, workspace=workspace)] == cards
    assert judge.told == []
    assert sorted(path.name for path in workspace.judges.glob("*.card.json")) == [
        "scope_1.card.json",
        "scope_1.scope-given.card.json",
    ]
    assert "scope        told, as in the gate" in str(cards[1]) and "not told, as on traffic" in str(cards[0])
    older = cards[0].model_dump(mode="json", exclude={"scope_given"})
    assert JudgeCard.model_validate(older) == cards[0]


def test_without_a_record_whose_scope_is_known_no_judge_may_gate(policy: Policy, workspace: Workspace) -> None:
    (Path(policy.questions)).write_text(json.dumps({"question": "q?", "in_scope": True, "split": "train"}) + "\n")
    with pytest.raises(UserError, match="no labelled record of the calibration split of policy 'banking' says whether"):
        gate_card_of(ScopeJudge(), policy, workspace=workspace)
    with pytest.raises(UserError, match="give them the field 'in_scope'"):
        _ = JudgeCards([card_of(ScopeJudge(), policy, workspace=workspace)]).gate


def test_a_comparison_says_whether_the_first_judge_and_the_best_may_gate(
    policy: Policy, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    judges = {seed: ScopeJudge(f"scope-{seed}") for seed in range(2)}

    def opened(choice: JudgeChoice, *_: object, **__: object) -> ScopeJudge:
        assert isinstance(choice.settings, LocalJudgeSettings)
        return judges[int(choice.prompts.name)]

    monkeypatch.setattr(comparison, "open_judge", opened)  # two judges, without the minutes of learning them
    open_tracking(workspace, "test")
    chosen = [JudgeChoice(settings=LocalJudgeSettings(kind="local"), prompts=Path(str(number))) for number in judges]
    compared = compare_judges(chosen, policy, workspace=workspace)
    assert [each.card.scope_given for each in compared.measured] == [False, False]
    assert [(each.card.judge_id, each.card.scope_given) for each in compared.told_scope] == [("scope-0", True)]
    said = " ".join(compared.sentences)
    assert "Told the scope, as the gate tells it, scope-0 has accuracy 1.000" in said
    assert "scope-0 is the best of 2 on the very records of its card" in said
    assert len(compared.pages) == 3 and "told-the-scope" in compared.pages[2].name
    assert "this card decides whether its verdicts may promote a model" in compared.pages[2].read_text(encoding="utf-8")
    assert "windows go by this card" in compared.pages[0].read_text(encoding="utf-8")
    runs = mlflow.search_runs(output_format="list")
    assert sorted(run.data.params["scope_given"] for run in runs) == ["False", "False", "True"]
    cards = JudgeCards([each.card for each in (*compared.measured, *compared.told_scope)])
    assert cards.gate == compared.told_scope[0].card


def test_whether_a_judge_may_gate_is_said_by_lower_bounds(policy: Policy, workspace: Workspace) -> None:
    card = kept_or_measured(ScopeJudge(), policy, workspace=workspace, scope_given=True).card
    strict, easy = (policy.model_copy(update={"judge_bar": JudgeBar(accuracy=a, kappa=0.5)}) for a in (0.95, 0.8))
    assert "it may not gate" in gate_in_words(card, strict)  # 36 of 36 are not enough to show it
    assert "it may gate" in gate_in_words(card, easy)
