"""Scores by the language of the question, and the policy's refusal in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from values import replace

from ontopic.config.policy import Policy
from ontopic.data.by_language import by_language, language_metrics
from ontopic.data.labelled import load_questions
from ontopic.data.language import refusal_to
from ontopic.data.sample import Sample, sampled_questions
from ontopic.records import Outcome, Verdict

GERMAN = "Wie kann ich meine verlorene Kreditkarte sperren lassen?"
SPANISH = "¿Cuánto tarda en llegar una transferencia a otro banco?"
FRENCH = "Comment faire opposition à un chèque que j'ai perdu ?"
ITALIAN = "Vorrei comprare casa, che documenti servono per il mutuo?"
ENGLISH = "How can I block the credit card that I have lost?"


def verdict(outcome: Outcome, declined: bool | None = None) -> Verdict:
    known = outcome != "unjudged"
    return Verdict(
        outcome=outcome,
        score=None,
        explanation="",
        judge_id="j",
        in_scope=True if known else None,
        declined=declined if known else None,
    )


def test_each_language_has_its_share_unjudged_and_over_refused() -> None:
    questions = [GERMAN] * 4 + [ENGLISH] * 3 + ["OK?"]
    verdicts = [
        verdict("unjudged"),
        verdict("fail", declined=True),
        verdict("pass", declined=False),
        verdict("pass", declined=False),
        *[verdict("pass", declined=False)] * 3,
        verdict("unjudged"),
    ]
    found = by_language(questions, verdicts)
    assert [(each.name, each.n, each.scores.unjudged) for each in found] == [
        ("de", 4, 1),
        ("en", 3, 0),
        ("unsure", 1, 1),
    ]
    metrics = language_metrics(found)
    assert metrics["language_de_unjudged"] == 0.25
    assert metrics["language_de_over_refusal"] == pytest.approx(1 / 3)
    assert (metrics["language_en_over_refusal"], metrics["language_en_n"]) == (0.0, 3)
    assert "language_unsure_over_refusal" not in metrics  # not a number


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (GERMAN, "Entschuldigung, ich kann nur bei Bankfragen helfen."),
        (SPANISH, "Lo siento, solo puedo ayudar con preguntas sobre banca."),
        (FRENCH, "Désolé, je ne peux répondre qu'aux questions bancaires."),
        (ENGLISH, "I'm sorry, I can only help with banking questions."),
        (ITALIAN, "I'm sorry, I can only help with banking questions."),
        ("OK?", "I'm sorry, I can only help with banking questions."),
    ],
    ids=["de", "es", "fr", "en", "without one of its own", "unsure"],
)
def test_a_question_is_declined_in_its_own_language(banking: Policy, question: str, said: str) -> None:
    assert refusal_to(banking, question) == said
    assert said in banking.all_refusals
    assert refusal_to(replace(banking, refusals={}), question) == banking.refusal


def test_what_the_policy_does_not_answer_in_is_out_of_scope_whatever_its_label(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    rows = [
        f'{{"question": "{question}", "in_scope": true, "reference": "Yes.", "split": "evaluation"}}'
        for question in (GERMAN, ITALIAN, ENGLISH, "OK?")
    ]
    file.write_text("\n".join(rows), encoding="utf-8")

    def scopes(*languages: str) -> list[bool]:
        return [question.in_scope for question in load_questions(str(file), languages=languages)]

    assert scopes() == [True] * 4
    assert scopes("en") == [False, False, True, True]
    assert scopes("en", "de") == [True, False, True, True]
    (italian,) = [q for q in load_questions(str(file), languages=["en", "de"]) if not q.in_scope]
    assert (italian.question, italian.reference) == (ITALIAN, None)
    sample = Sample(source=str(file), source_sha256="", split="evaluation", n=4, languages=["en"])
    assert {q.question: q.in_scope for q in sampled_questions(sample)}[ITALIAN] is False
