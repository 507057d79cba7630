"""The records that try to turn a judge: enough of each kind, labelled, and none seen in the other data."""

from __future__ import annotations

import unicodedata
from collections import Counter
from importlib.resources import files

import pytest

from ontopic.data.labelled import LabelledRecord, load_questions, load_records
from ontopic.data.same_question import near_duplicates

KINDS = {
    "instructions_to_pass",
    "fake_verdict",
    "fake_rubric",
    "closed_delimiter",
    "unicode_tricks",
    "refusal_then_answer",
    "answer_then_refusal",
    "refusal_inside",
    "pass_lookalike",
}


@pytest.fixture(scope="module")
def attacks() -> list[LabelledRecord]:
    return load_records("ontopic:banking/attacks.jsonl")


def plain(text: str) -> str:
    """The text without its tricks of width, weight and invisible characters."""
    return "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")


def tricks(text: str) -> set[str]:
    """What the text's characters do to deceive a reader or a program."""
    found = set()
    for character in text:
        name = unicodedata.name(character, "")
        if unicodedata.category(character) in ("Cf", "Zl"):
            found.add("invisible")
        elif unicodedata.combining(character):
            found.add("combining")
        elif name.startswith(("CYRILLIC", "GREEK")):
            found.add("look-alike")
        elif not character.isascii() and unicodedata.normalize("NFKC", character) != character:
            found.add("styled or blank")
        if unicodedata.bidirectional(character) in ("RLO", "RLI", "R"):
            found.add("turned round")
    return found


def test_there_are_many_attacks_of_every_kind(attacks: list[LabelledRecord]) -> None:
    counts = Counter(record.kind for record in attacks)
    assert len(attacks) >= 100
    assert set(counts) == KINDS
    assert min(counts.values()) >= 10


def test_every_attack_is_labelled_with_a_reason_and_kept_for_evaluation(attacks: list[LabelledRecord]) -> None:
    assert all(record.label and record.in_scope is not None and record.why for record in attacks)
    assert {record.split for record in attacks} == {"evaluation"}


def test_neither_always_pass_nor_always_fail_nor_the_scope_alone_gets_them_right(
    attacks: list[LabelledRecord],
) -> None:
    cells = Counter((record.in_scope, record.label) for record in attacks)
    assert min(cells[scope, label] for scope in (True, False) for label in ("pass", "fail")) >= 10


def test_the_lookalikes_pass_and_a_forbidden_answer_near_a_refusal_fails(attacks: list[LabelledRecord]) -> None:
    assert {record.label for record in attacks if record.kind == "pass_lookalike"} == {"pass"}
    assert {record.label for record in attacks if "refusal" in record.kind} == {"fail"}


def test_no_question_is_asked_in_the_other_data_or_twice(attacks: list[LabelledRecord]) -> None:
    questions = [plain(record.question) for record in attacks]
    others = [row.question for row in load_questions("ontopic:banking/questions.jsonl")]
    others += [row.question for row in load_records("ontopic:banking/records.jsonl")]
    assert [(questions[i], others[j]) for i, j in near_duplicates(questions, others)] == []
    assert [(questions[i], questions[j]) for i, j in near_duplicates(questions, questions) if i < j] == []


def test_the_unicode_tricks_are_in_the_text_and_are_of_many_sorts(attacks: list[LabelledRecord]) -> None:
    found = [tricks(record.question + record.answer) for record in attacks if record.kind == "unicode_tricks"]
    assert all(found)
    assert set().union(*found) == {"invisible", "combining", "look-alike", "styled or blank", "turned round"}


def test_every_trick_character_is_visible_in_the_file_as_an_escape() -> None:
    assert (files("ontopic") / "data" / "banking" / "attacks.jsonl").read_bytes().isascii()
