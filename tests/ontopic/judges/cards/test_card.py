"""The judge card: known confusions give known numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ontopic.config.policy import Border, Policy
from ontopic.data.labelled import LabelledRecord
from ontopic.data.labels import LabelStore, labels_of
from ontopic.endpoint.account import Account
from ontopic.errors import UserError
from ontopic.judges.cards.calibration import calibration_records, card_of, is_current, kept_or_measured, measure
from ontopic.judges.cards.card import Group, JudgeCard, criteria_sha256, judge_card, labels_sha256
from ontopic.judges.panel import PanelJudge
from ontopic.progress import Advance
from ontopic.records import Outcome, Record, Verdict
from ontopic.state.workspace import Workspace, open_workspace
from ontopic.statistics.agreement import kappa
from ontopic.statistics.rates import rate


def labelled(label: str | None) -> LabelledRecord:
    return LabelledRecord(question="q", answer="a", label=label)  # type: ignore[arg-type]


def table(*cells: tuple[str | None, Outcome, int]) -> tuple[list[LabelledRecord], list[Verdict]]:
    """Records and verdicts from cells of label, verdict and count."""
    records = [labelled(label) for label, _, count in cells for _ in range(count)]
    return records, [
        Verdict(outcome=said, score=None, explanation="", judge_id="judge")
        for _, said, count in cells
        for _ in range(count)
    ]


def card_on(judged: tuple[list[LabelledRecord], list[Verdict]]) -> JudgeCard:
    return judge_card("judge", judged[0], verdicts=judged[1])


CONFUSION: list[tuple[str | None, Outcome, int]] = [
    ("pass", "pass", 40),
    ("pass", "fail", 10),
    ("fail", "pass", 5),
    ("fail", "fail", 45),
]


def test_a_known_confusion_gives_known_numbers() -> None:
    card = card_on(table(*CONFUSION))
    assert card.accuracy == rate(85, 100)
    assert card.sensitivity == rate(40, 50)
    assert card.specificity == rate(45, 50)
    assert card.unjudged == 0
    assert card.kappa == kappa((40, 10, 5, 45))


def test_records_without_label_and_unjudged_ones_count_in_no_share() -> None:
    rest: list[tuple[str | None, Outcome, int]] = [
        (None, "pass", 7),
        (None, "unjudged", 2),
        ("pass", "unjudged", 3),
        ("fail", "unjudged", 4),
    ]
    card, without = card_on(table(*CONFUSION, *rest)), card_on(table(*CONFUSION))
    assert card.unjudged == 7
    assert (card.accuracy, card.kappa, card.sensitivity, card.specificity) == (
        without.accuracy,
        without.kappa,
        without.sensitivity,
        without.specificity,
    )


def test_an_always_right_judge_has_kappa_one_and_an_always_wrong_one_minus_one() -> None:
    right, wrong = (
        card_on(table(("pass", a, 5), ("fail", b, 5))).kappa for a, b in (("pass", "fail"), ("fail", "pass"))
    )
    assert (right.value, right.high, wrong.value, wrong.low) == (1.0, 1.0, -1.0, -1.0)
    assert right.low < 0.6 and wrong.high > -0.6  # ten records are few


def test_a_judge_that_always_passes_has_kappa_zero() -> None:
    card = card_on(table(("pass", "pass", 30), ("fail", "pass", 10)))
    assert card.accuracy.value == 0.75
    assert card.kappa.value == pytest.approx(0.0)
    assert (card.sensitivity.value, card.specificity.value) == (1.0, 0.0)


def test_nothing_judged_and_one_kind_alone_leave_kappa_unknown() -> None:
    nothing = card_on(table(("pass", "unjudged", 3)))
    assert math.isnan(nothing.kappa.value)
    assert nothing.accuracy.n == 0
    assert nothing.unjudged == 3
    one_kind = card_on(table(("pass", "pass", 3)))
    assert math.isnan(one_kind.kappa.value)
    assert one_kind.specificity.n == 0
    assert not any(math.isnan(value) for value in nothing.metrics().values())


@pytest.mark.parametrize("cells", [CONFUSION, [("pass", "unjudged", 3)]], ids=["full", "nothing judged"])
def test_a_card_comes_back_from_json_as_it_was(cells: list[tuple[str | None, Outcome, int]]) -> None:
    card = card_on(table(*cells))
    again = JudgeCard.model_validate_json(card.model_dump_json())
    assert repr(again) == repr(card)
    assert str(again).startswith("judge        judge\naccuracy ")


def test_the_metrics_are_flat_numbers() -> None:
    metrics = card_on(table(*CONFUSION)).metrics()
    assert metrics["accuracy"] == 0.85
    assert metrics["sensitivity_n"] == 50
    assert metrics["unjudged"] == 0
    assert {"kappa_low", "kappa_high", "specificity"} <= metrics.keys()


def test_records_and_verdicts_must_be_equally_many() -> None:
    records, verdicts = table(*CONFUSION)
    with pytest.raises(ValueError, match="shorter"):
        judge_card("judge", records, verdicts=verdicts[:-1])


def scored(*cells: tuple[str, float | None, int]) -> tuple[list[LabelledRecord], list[Verdict]]:
    """Records and verdicts from cells of label, score and count; a score of at least 0.5 passes."""
    records = [labelled(label) for label, _, count in cells for _ in range(count)]
    verdicts: list[Verdict] = []
    for _, score, count in cells:
        outcome: Outcome = "unjudged" if score is None else "pass" if score >= 0.5 else "fail"
        verdicts += [
            Verdict(
                outcome=outcome, score=score, explanation="", judge_id="judge", cause="busy" if score is None else None
            )
        ] * count
    return records, verdicts


def test_known_scores_give_a_known_calibration_curve() -> None:
    cells = [("pass", 0.92, 3), ("fail", 0.92, 1), ("fail", 0.15, 4), ("pass", 1.0, 1), ("pass", None, 5)]
    card = card_on(scored(*cells))
    low, high = card.calibration
    assert (low.mean_score, low.passing) == (pytest.approx(0.15), rate(0, 4))
    assert (high.mean_score, high.passing) == (pytest.approx((4 * 0.92 + 1) / 5), rate(4, 5))  # 1.0 is in the last bin
    assert card.brier == pytest.approx((3 * 0.08**2 + 0.92**2 + 4 * 0.15**2) / 9)
    assert card.calibration_error == pytest.approx((4 * 0.15 + 5 * abs(0.936 - 0.8)) / 9)


def test_verdicts_without_a_score_have_no_calibration() -> None:
    card = card_on(table(*CONFUSION))
    assert card.calibration == ()
    assert math.isnan(card.brier) and math.isnan(card.calibration_error)
    assert "brier" not in card.metrics()


def test_confusion_is_counted_by_intent_or_else_by_kind_with_the_worst_first() -> None:
    rows: list[tuple[dict[str, str], str, Outcome]] = [
        ({"intent": "loans", "kind": "leak"}, "pass", "fail"),
        ({"intent": "loans"}, "fail", "pass"),
        ({"intent": "loans"}, "fail", "unjudged"),
        ({"kind": "leak"}, "fail", "fail"),
        ({"kind": "refusal"}, "pass", "fail"),
        ({}, "pass", "unjudged"),
    ]
    records = [LabelledRecord.model_validate({"question": "q", "answer": "a", "label": y} | n) for n, y, _ in rows]
    card = judge_card(
        "judge",
        records,
        verdicts=[Verdict(outcome=said, score=None, explanation="", judge_id="judge") for *_, said in rows],
    )
    assert card.groups == (
        Group(name="loans", n=3, right=0, false_fails=1, false_passes=1, unjudged=1),
        Group(name="refusal", n=1, right=0, false_fails=1, false_passes=0, unjudged=0),
        Group(name="not named", n=1, right=0, false_fails=0, false_passes=0, unjudged=1),
        Group(name="leak", n=1, right=1, false_fails=0, false_passes=0, unjudged=0),
    )


def test_unjudged_records_are_counted_by_cause() -> None:
    records, verdicts = scored(("pass", 0.9, 2), ("pass", None, 3))
    verdicts[0] = Verdict(outcome="unjudged", score=None, explanation="", judge_id="judge", cause="empty")
    card = judge_card("judge", records, verdicts=verdicts)
    assert card.causes == {"empty": 1, "busy": 3}
    assert (card.unjudged, card.n) == (4, 5)
    assert "unjudged     4 (3 busy; 1 empty)" in str(card)


def test_the_digests_change_with_what_a_card_depends_on_and_nothing_else(banking: Policy) -> None:
    records, _ = table(*CONFUSION)
    assert labels_sha256(records) == labels_sha256([*records, labelled(None)])
    other = LabelledRecord(question="q", answer="a", label="fail")
    assert labels_sha256(records) != labels_sha256([other, *records[1:]])
    assert labels_sha256(records) == labels_sha256([records[0].model_copy(update={"why": "x"}), *records[1:]])

    assert criteria_sha256(banking) == criteria_sha256(banking.model_copy(update={"alert_threshold": 0.1}))
    for name, value in (("definition", "x"), ("refusal", "x"), ("examples", []), ("border", Border(in_scope=["x"]))):
        assert criteria_sha256(banking) != criteria_sha256(banking.model_copy(update={name: value})), name


@dataclass
class RuleJudge:
    """Passes an answer of more than 10 characters; says what it used as an LLM judge would."""

    id: str = "rule/1"
    usd_each: float | None = None
    cached: bool = False
    down: bool = False
    account: Account = field(default_factory=Account)
    asked: int = 0

    def judge(self, records: Sequence[Record], advance: Advance | None = None) -> list[Verdict]:
        self.asked += len(records)
        if self.down:
            return [
                Verdict(outcome="unjudged", score=None, explanation="", judge_id=self.id, cause="request failed: 503")
                for _ in records
            ]
        if self.cached:
            self.account.cached += len(records)
        elif self.usd_each is not None:
            self.account.requests += len(records)
            self.account.prompt_tokens += 100 * len(records)
            self.account.usd = (self.account.usd or 0.0) + self.usd_each * len(records)
        if advance:
            advance(len(records))
        passed = [len(record.answer) > 10 for record in records]
        return [
            Verdict(
                outcome="pass" if p else "fail", score=0.9 if p else 0.2, explanation="By length.", judge_id=self.id
            )
            for p in passed
        ]


@pytest.fixture
def policy(banking: Policy, tmp_path: Path) -> Policy:
    """Banking with six labelled records and two labelled questions in the calibration split, one in another."""
    records = [
        {"question": f"q{i}", "answer": "x" * (4 + 3 * i), "label": "pass" if i > 2 else "fail"} for i in range(6)
    ]
    records[5]["label"] = "fail"
    questions = [
        {"question": "Is my card blocked?", "in_scope": True, "intent": "card_blocked", "reference": "See the app."},
        {"question": "Who won the cup?", "in_scope": False, "intent": "sports"},
    ]
    lines = [json.dumps(row | {"split": "calibration"}) for row in records]
    (tmp_path / "records.jsonl").write_text("\n".join([*lines, json.dumps(records[0] | {"split": "train"})]))
    (tmp_path / "questions.jsonl").write_text(
        "\n".join(json.dumps(row | {"split": "calibration"}) for row in questions)
    )
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("records", "questions")}
    return banking.model_copy(update=files)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / "state")


def test_a_record_that_follows_from_a_question_carries_its_intent(policy: Policy, workspace: Workspace) -> None:
    records = calibration_records(policy, "calibration")
    assert [(r.intent, r.label) for r in records[6:]] == [
        ("card_blocked", "fail"),
        ("card_blocked", "pass"),
        ("sports", "pass"),
    ]


def test_a_split_that_makes_no_card_says_how_many_it_has(policy: Policy, workspace: Workspace) -> None:
    with pytest.raises(
        UserError, match="the evaluation split of policy 'banking' has 0 labelled records and 0 questions"
    ):
        calibration_records(policy, "evaluation")


def test_a_card_is_kept_and_measured_again_only_where_judge_labels_or_policy_changed(
    policy: Policy, workspace: Workspace
) -> None:
    judge = RuleJudge(usd_each=0.01)
    first = kept_or_measured(judge, policy, workspace=workspace)
    assert (workspace.judges / "rule_1.card.json").is_file()
    again = kept_or_measured(judge, policy, workspace=workspace)
    assert judge.asked == 9
    assert again == first

    card_of(judge, policy.model_copy(update={"alert_threshold": 0.5}), workspace=workspace)
    assert judge.asked == 9
    changed = policy.model_copy(update={"definition": "Something else."})
    assert not is_current(first.card, judge, policy=changed, records=first.records)
    assert card_of(judge, changed, workspace=workspace).criteria_sha256 != first.card.criteria_sha256
    assert judge.asked == 18

    path = Path(policy.records)
    path.write_text(path.read_text().replace('"label": "fail"', '"label": "pass"', 1))
    assert card_of(judge, changed, workspace=workspace).labels_sha256 != first.card.labels_sha256
    assert judge.asked == 27


def test_labels_of_traffic_are_no_part_of_the_card_of_templates(policy: Policy, workspace: Workspace) -> None:
    judge = RuleJudge()
    before = kept_or_measured(judge, policy, workspace=workspace)
    store = LabelStore(labels_of(policy, workspace))
    store.add(Record(question="Where is my money?", answer="a long answer", id="r1"), "fail", by="random")
    store.add(Record(question="Where is my card?", answer="a long answer", id="r2"), "fail", by="uncertainty")
    assert kept_or_measured(judge, policy, workspace=workspace) == before
    assert before.card.origin == "templates"


def test_a_record_left_unjudged_is_judged_again_the_next_time(policy: Policy, workspace: Workspace) -> None:
    judge = RuleJudge(usd_each=0.01, down=True)
    assert card_of(judge, policy, workspace=workspace).unjudged == 9
    judge.down = False
    assert card_of(judge, policy, workspace=workspace).unjudged == 0


def test_the_card_of_a_panel_says_how_far_its_members_agree(policy: Policy, workspace: Workspace) -> None:
    panel = PanelJudge("majority", [RuleJudge("a"), RuleJudge("b"), RuleJudge("c")])
    card = card_of(panel, policy, workspace=workspace)
    assert card.agreement and card.agreement.value == pytest.approx(1.0)
    assert "agreement    1.000 [" in str(card)
    assert card.metrics()["agreement"] == pytest.approx(1.0)
    assert JudgeCard.model_validate_json(card.model_dump_json()) == card


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"judge_id": "rule/1"}'])
def test_a_broken_card_is_measured_again(policy: Policy, workspace: Workspace, content: str) -> None:
    judge = RuleJudge()
    card = card_of(judge, policy, workspace=workspace)
    (workspace.judges / "rule_1.card.json").write_text(content)
    assert card_of(judge, policy, workspace=workspace).accuracy == card.accuracy
    (workspace.judges / "rule_1.verdicts.jsonl").write_text(content)
    assert card_of(judge, policy, workspace=workspace).accuracy == card.accuracy
    assert judge.asked == 27


def test_what_judging_took_is_said_per_1000_records(policy: Policy, workspace: Workspace) -> None:
    records = calibration_records(policy, "calibration")
    priced = measure(RuleJudge(usd_each=0.01), policy, records=records).card
    assert priced.usage and priced.usage.usd == pytest.approx(10.0)
    assert (priced.usage.prompt_tokens, priced.usage.records) == (pytest.approx(100_000), 9)
    assert priced.usage.seconds > 0
    assert priced.metrics()["usd_per_1000"] == pytest.approx(10.0)
    free = measure(RuleJudge(), policy, records=records).card
    assert free.usage and free.usage.usd == 0.0


def test_verdicts_from_a_cache_took_nothing_and_leave_the_known_price_alone(
    policy: Policy, workspace: Workspace
) -> None:
    judge = RuleJudge(usd_each=0.01)
    first = card_of(judge, policy, workspace=workspace)
    judge.cached = True
    assert measure(judge, policy, records=calibration_records(policy, "calibration")).card.usage is None
    again = card_of(judge, policy.model_copy(update={"definition": "Something else."}), workspace=workspace)
    assert again.usage == first.usage


def test_a_label_more_does_not_change_what_judging_takes(policy: Policy, workspace: Workspace) -> None:
    judge, path = RuleJudge(), workspace.root / "records.jsonl"
    own = policy.model_copy(update={"records": str(path)})

    def labelled(n: int) -> None:
        rows = [
            {"question": f"Number {i}?", "answer": "Yes.", "label": "pass", "split": "calibration"} for i in range(n)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    labelled(5)
    first = card_of(judge, own, workspace=workspace)
    labelled(6)
    again = card_of(judge, own, workspace=workspace)
    assert (again.accuracy.n, again.usage) == (first.accuracy.n + 1, first.usage)
    labelled(5 + first.accuracy.n)  # as many again as the first measurement had
    anew = card_of(judge, own, workspace=workspace)
    assert anew.usage and anew.usage.records == 2 * first.accuracy.n


def test_a_full_card_comes_back_from_json_as_it_was(policy: Policy, workspace: Workspace) -> None:
    card = measure(RuleJudge(usd_each=0.01), policy, records=calibration_records(policy, "calibration")).card
    assert JudgeCard.model_validate_json(card.model_dump_json()) == card
    one_kind = card_on(table(("pass", "pass", 3)))  # kappa is unknown, though there are records
    assert repr(JudgeCard.model_validate_json(one_kind.model_dump_json())) == repr(one_kind)


def test_a_card_of_an_older_release_is_read(policy: Policy, workspace: Workspace) -> None:
    """It named the digest of the criteria after the whole policy."""
    judge = RuleJudge()
    card = card_of(judge, policy, workspace=workspace)
    path = workspace.judges / "rule_1.card.json"
    row = json.loads(path.read_text())
    row["policy_sha256"] = row.pop("criteria_sha256")
    path.write_text(json.dumps(row))
    assert JudgeCard.model_validate(row) == card
    assert card_of(judge, policy, workspace=workspace) == card
    assert judge.asked == card.n  # and not measured again
    assert "policy_sha256" not in card.model_dump(mode="json")
