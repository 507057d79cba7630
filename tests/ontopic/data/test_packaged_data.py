"""The data that comes with the package: enough of it, labelled, and no question in two splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import pytest

from ontopic.config.policy import load_policy
from ontopic.data.labelled import LabelledRecord, Message, Question, load_questions, load_records
from ontopic.data.rows import load_rows
from ontopic.data.same_question import near_duplicates, normalized

ROOT = Path(__file__).resolve().parents[3]
POLICIES = sorted((ROOT / "configs" / "policies").glob("*.yaml"))
FOLDERS = sorted(path.parent for path in (ROOT / "ontopic" / "data").glob("*/questions.jsonl"))
SPLITS = {"train", "calibration", "evaluation"}
FOLLOWING = {"follow_up", "change_of_subject", "off_topic_after_banking", "banking_after_chit_chat"}
HELD_OUT = FOLLOWING - {"change_of_subject"} | {"instruction_override", "role_play", "other_language", "two_part"}
CHECKED = {"follow_up", "two_part", "change_of_subject", "quoted_material"}
"""The kinds that calibration measures, too."""

policies = pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)


class Turns(LabelledRecord):
    """A record with all that was said up to its question."""

    messages: tuple[Message, ...] = ()

    @property
    def history(self) -> tuple[Message, ...]:
        return self.messages[:-1]


def recorded(path: Path) -> list[Turns]:
    return load_rows(load_policy(path).records, Turns).rows


def rows(path: Path) -> list[Question | Turns]:
    return [*data(path)[0], *recorded(path)]


def follows(row: Question | Turns) -> bool:
    """Whether its subject is to be told from what it follows alone."""
    return row.kind == "follow_up" or isinstance(row, Turns)


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
    assert {kind for kind, _ in counts} == HELD_OUT | CHECKED
    assert min(counts[kind, split] for kind in HELD_OUT for split in ("train", "evaluation")) >= 40
    # What a model was measured on before stays what it is measured on.
    assert sum(q.split == "evaluation" for q in questions if q.kind) == 280
    assert min(counts[kind, split] for kind in CHECKED for split in ("train", "calibration")) >= 20
    for question in questions:
        roles = [message["role"] for message in question.messages]
        assert roles == [("user", "assistant")[i % 2] for i in range(len(roles))] and len(roles) % 2 == 1
    assert all(q.history for q in questions if q.kind in FOLLOWING)


def test_whether_something_was_said_before_tells_nothing_of_the_scope() -> None:
    questions, _ = data(ROOT / "configs" / "policies" / "banking.yaml")
    for kind in ("follow_up", "change_of_subject", "quoted_material"):
        inside = [q.in_scope for q in questions if q.kind == kind and q.split != "evaluation"]
        assert 0.35 <= sum(inside) / len(inside) <= 0.65


def test_at_least_200_held_out_questions_in_scope_have_a_reference() -> None:
    questions, _ = data(ROOT / "configs" / "policies" / "banking.yaml")
    assert sum(q.split == "evaluation" and q.in_scope and bool(q.reference) for q in questions) >= 200


def test_account_questions_and_invented_account_data_are_there_to_learn_and_to_measure() -> None:
    questions, records = data(ROOT / "configs" / "policies" / "banking.yaml")
    account = Counter(q.split for q in questions if q.intent == "account_specific")
    assert min(account[split] for split in ("train", "evaluation")) >= 50
    invented = Counter(r.split for r in records if r.kind == "invented_account_data" and r.label == "fail")
    assert min(invented[split] for split in ("train", "calibration")) >= 50


def test_the_same_last_sentence_and_answer_are_right_in_one_conversation_and_wrong_in_another() -> None:
    records = [r for r in recorded(ROOT / "configs" / "policies" / "banking.yaml") if r.messages]
    assert all(r.messages[-1] == Message(role="user", content=r.question) for r in records)
    pairs: dict[tuple[str, str, str | None], list[Turns]] = defaultdict(list)
    for record in records:
        pairs[record.question, record.answer, record.split].append(record)
    assert len(pairs) >= 100 and Counter(split for _, _, split in pairs) == {"train": 80, "calibration": 20}
    for pair in pairs.values():
        assert {(r.in_scope, r.label) for r in pair} in (
            {(True, "pass"), (False, "fail")},
            {(True, "fail"), (False, "pass")},
        )


@policies
def test_every_split_has_both_kinds(path: Path) -> None:
    questions, records = data(path)
    held = {(q.split, q.in_scope) for q in questions if q.split != "judge"}  # which a policy need not have
    assert held == {(s, kind) for s in SPLITS for kind in (True, False)}
    assert {(r.split, r.label) for r in records} == {(s, label) for s in SPLITS for label in ("pass", "fail")}


def conversation(row: Question | Turns) -> str:
    """What makes a conversation the same one: a short follow-up repeats by its own words."""
    return "\n".join([*(turn.content for turn in row.history), row.question])


@policies
def test_no_question_and_no_conversation_stands_in_two_splits(path: Path) -> None:
    texts: dict[str, list[str]] = {split: [] for split in sorted(SPLITS | {"judge"})}
    for row in rows(path):
        assert row.split
        texts[row.split].append(conversation(row))
        if row.history and not follows(row):
            texts[row.split].append(row.question)
    for left, right in combinations(texts.values(), 2):
        assert not {normalized(text) for text in left} & {normalized(text) for text in right}
        assert [(left[i], right[j]) for i, j in near_duplicates(left, right, threshold=0.8)] == []


@policies
def test_no_question_is_given_twice_or_with_two_scopes(path: Path) -> None:
    questions, records = data(path)[0], recorded(path)
    counts = Counter(normalized(conversation(q)) for q in questions)
    counts += Counter(normalized(q.question) for q in questions if q.history and not follows(q))
    assert [text for text, count in counts.items() if count > 1] == []
    scopes = {normalized(conversation(q)): q.in_scope for q in questions}
    told = [(normalized(conversation(r)), r.in_scope) for r in records if r.in_scope is not None]
    assert [text for text, in_scope in told if scopes.get(text, in_scope) != in_scope] == []


@policies
def test_references_answer_and_do_not_decline(path: Path) -> None:
    questions, _ = data(path)
    refusal = load_policy(path).refusal
    assert [q.question for q in questions if q.reference and (not q.in_scope or refusal in q.reference)] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_shipped_data_set_loads_and_has_a_policy(folder: Path) -> None:
    source = f"ontopic:{folder.name}"
    assert len(load_questions(f"{source}/questions.jsonl")) == lines(folder / "questions.jsonl")
    assert len(load_records(f"{source}/records.jsonl")) == lines(folder / "records.jsonl")
    assert source in {load_policy(path).questions.rpartition("/")[0] for path in POLICIES}


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())
