"""What the policy's languages change for judges: the prompt, the criteria, the calibration set and the card."""

from __future__ import annotations

from pathlib import Path

from values import replace

from ontopic.config.policy import Policy
from ontopic.data.labelled import LabelledRecord
from ontopic.judges.cards.calibration import calibration_records
from ontopic.judges.cards.card import Group, criteria_sha256, judge_card
from ontopic.judges.llm.templates import policy_values
from ontopic.records import Outcome, Verdict

GERMAN = "Wie kann ich meine verlorene Kreditkarte sperren lassen?"
ENGLISH = "How can I block the credit card that I have lost?"


def test_a_judge_is_told_which_languages_are_answered_in(banking: Policy) -> None:
    assert "language other than" not in policy_values(banking)["outside"]
    told = policy_values(replace(banking, languages=["en", "de"]))["outside"]
    assert told.endswith("- whatever is asked in a language other than en, de (ISO 639-1), banking included")


def test_cards_of_policies_without_languages_stay_good(banking: Policy) -> None:
    plain = replace(banking, refusals={}, languages=[])
    digests = {criteria_sha256(plain), criteria_sha256(banking), criteria_sha256(replace(plain, languages=["en"]))}
    assert len(digests) == 3
    assert criteria_sha256(plain) == criteria_sha256(Policy.model_validate(plain.model_dump(exclude={"languages"})))


def test_the_calibration_set_declines_in_the_language_of_each_question(tmp_path: Path, banking: Policy) -> None:
    questions = tmp_path / "questions.jsonl"
    rows = [f'{{"question": "{question}", "in_scope": true, "split": "calibration"}}' for question in (GERMAN, ENGLISH)]
    questions.write_text("\n".join(rows), encoding="utf-8")
    records = tmp_path / "records.jsonl"
    records.write_text('{"question": "q", "answer": "a", "label": "pass", "split": "train"}', encoding="utf-8")
    policy = replace(banking, questions=str(questions), records=str(records))

    def found(policy: Policy) -> list[tuple[str, str | None]]:
        return [(row.answer, row.label) for row in calibration_records(policy, "calibration")]

    assert found(policy) == [(banking.refusals["de"], "fail"), (banking.refusal, "fail")]
    # Where the assistant answers in English alone, declining the German question is right.
    assert found(replace(policy, languages=["en"])) == [(banking.refusals["de"], "pass"), (banking.refusal, "fail")]


def test_a_card_counts_errors_by_language() -> None:
    def said(outcome: Outcome) -> Verdict:
        return Verdict(outcome=outcome, score=None, explanation="", judge_id="j")

    asked = [GERMAN, GERMAN, ENGLISH, ENGLISH]
    records = [LabelledRecord(question=question, answer="a", label="pass", intent="card") for question in asked]
    card = judge_card("j", records, verdicts=[said("fail"), said("unjudged"), said("pass"), said("pass")])
    assert card.languages == (
        Group(name="de", n=2, right=0, false_fails=1, false_passes=0, unjudged=1),
        Group(name="en", n=2, right=2, false_fails=0, false_passes=0, unjudged=0),
    )
