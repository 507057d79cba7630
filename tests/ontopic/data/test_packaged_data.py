"""The data that comes with the package: enough of it, labelled, and no question in two splits."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from ontopic.config.policy import load_policy
from ontopic.data.labelled import LabelledRecord, Question, load_questions, load_records, near_duplicates
from ontopic.data.sample import normalized

ROOT = Path(__file__).resolve().parents[3]
POLICIES = sorted((ROOT / "configs" / "policies").glob("*.yaml"))
FOLDERS = sorted(path.parent for path in (ROOT / "ontopic" / "data").glob("*/questions.jsonl"))
SPLITS = {"train", "calibration", "evaluation"}

policies = pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)


def data(path: Path) -> tuple[list[Question], list[LabelledRecord]]:
    policy = load_policy(path)
    return load_questions(policy.questions), load_records(policy.records)


def test_there_is_much_and_varied_banking_data() -> None:
    questions, records = data(ROOT / "configs" / "policies" / "banking.yaml")
    assert len(questions) >= 1500
    assert len({q.intent for q in questions if q.in_scope} - {""}) >= 40
    assert len({q.intent for q in questions if not q.in_scope} - {""}) >= 40
    assert sum(bool(q.reference) for q in questions) >= 400
    assert sum(bool(r.label and r.why) for r in records) >= 300


def test_there_are_conversations_of_every_kind_to_learn_and_to_measure() -> None:
    questions, _ = data(ROOT / "configs" / "policies" / "banking.yaml")
    counts = Counter((q.kind, q.split) for q in questions if q.kind)
    kinds = {kind for kind, _ in counts}
    assert kinds == {
        "off_topic_after_banking",
        "banking_after_chit_chat",
        "instruction_override",
        "role_play",
        "other_language",
        "two_part",
        "follow_up",
    }
    assert min(counts[kind, split] for kind in kinds for split in ("train", "evaluation")) >= 40
    for question in questions:
        roles = [message["role"] for message in question.messages]
        assert roles == [("user", "assistant")[i % 2] for i in range(len(roles))] and len(roles) % 2 == 1
    after = [q for q in questions if q.kind in ("off_topic_after_banking", "banking_after_chit_chat", "follow_up")]
    assert all(q.history for q in after)


def test_at_least_200_held_out_questions_in_scope_have_a_reference() -> None:
    questions, records = data(ROOT / "configs" / "policies" / "banking.yaml")
    held_out = [q for q in questions if q.split == "evaluation"]
    assert sum(bool(q.in_scope and q.reference) for q in held_out) >= 200
    account = Counter(q.split for q in held_out + questions if q.intent == "account_specific")
    assert min(account.values()) >= 50
    invented = Counter(r.split for r in records if r.kind == "invented_account_data" and r.label == "fail")
    assert min(invented[split] for split in ("train", "calibration")) >= 50


@policies
def test_every_split_has_both_kinds(path: Path) -> None:
    questions, records = data(path)
    held = {(q.split, q.in_scope) for q in questions if q.split != "judge"}  # which a policy need not have
    assert held == {(s, kind) for s in SPLITS for kind in (True, False)}
    assert {(r.split, r.label) for r in records} == {(s, label) for s in SPLITS for label in ("pass", "fail")}


@policies
def test_no_question_stands_in_two_splits(path: Path) -> None:
    questions, records = data(path)
    texts: dict[str, list[str]] = {split: [] for split in sorted(SPLITS | {"judge"})}
    for row in [*questions, *records]:
        assert row.split
        texts[row.split].append(row.question)
    for left, right in combinations(texts.values(), 2):
        assert not {normalized(text) for text in left} & {normalized(text) for text in right}
        assert [(left[i], right[j]) for i, j in near_duplicates(left, right, threshold=0.8)] == []


@policies
def test_no_question_is_given_twice_or_with_two_scopes(path: Path) -> None:
    questions, records = data(path)
    counts = Counter(normalized(q.question) for q in questions)
    assert [text for text, count in counts.items() if count > 1] == []
    scopes = {normalized(q.question): q.in_scope for q in questions}
    told = [(normalized(r.question), r.in_scope) for r in records if r.in_scope is not None]
    assert [text for text, in_scope in told if scopes.get(text, in_scope) != in_scope] == []


@policies
def test_references_answer_and_do_not_decline(path: Path) -> None:
    questions, _ = data(path)
    refusal = load_policy(path).refusal
    assert [q.question for q in questions if q.reference and (not q.in_scope or refusal in q.reference)] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_shipped_data_set_loads_and_has_a_policy(folder: Path) -> None:
    source = f"ontopic:{folder.name}"
    assert load_questions(f"{source}/questions.jsonl")
    assert load_records(f"{source}/records.jsonl")
    assert source in {load_policy(path).questions.rpartition("/")[0] for path in POLICIES}
