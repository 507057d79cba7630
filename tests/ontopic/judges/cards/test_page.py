"""Pages on judges: what they say first, what they show, and that no text of a label or of a judge becomes markup."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawn_pages import assert_inert, text_of
from pages import HOSTILE

from ontopic.config.policy import Policy
from ontopic.data.labelled import LabelledRecord
from ontopic.judges.cards.calibration import Measured
from ontopic.judges.cards.card import Usage, judge_card
from ontopic.judges.cards.comparison_page import comparison_report
from ontopic.judges.cards.page import card_page, card_report, comparison_page
from ontopic.records import Verdict
from ontopic.statistics.rates import rate


def measured(judge_id: str, wrong: int, text: str = "text", n: int = 40) -> Measured:
    """Records, right and wrong answers by turns, of which the judge gets the first ones wrong; the last is unjudged."""
    records, verdicts = [], []
    for i in range(n):
        label = "pass" if i % 2 else "fail"
        said = label if i >= wrong else "fail" if label == "pass" else "pass"
        row = {"question": f"{text} {i}?", "answer": text, "label": label, "kind": f"{text}{i % 3}"}
        records.append(LabelledRecord.model_validate(row))
        score = 0.9 if said == "pass" else 0.2
        verdicts.append(Verdict(outcome=said, score=score, explanation=text, judge_id=judge_id))  # type: ignore[arg-type]
    verdicts[-1] = Verdict(outcome="unjudged", score=None, explanation="", judge_id=judge_id, cause=text)
    return Measured(card=judge_card(judge_id, records, verdicts=verdicts), records=records, verdicts=verdicts)


def told(of: Measured) -> Measured:
    return of.model_copy(update={"card": of.card.model_copy(update={"scope_given": True})})


def card_text(of: Measured, policy: Policy, out: Path) -> str:
    card_report(of, policy, source="the calibration split", out=out)
    return text_of(out)


def test_a_card_page_shows_rates_confusion_and_what_the_judge_got_wrong(tmp_path: Path, banking: Policy) -> None:
    text = card_text(measured("judge-1", 3), banking, tmp_path / "deep" / "page.html")
    for title in ("Good enough to watch traffic: yes", "Calibration curve", "Confusion matrix", "What is not known"):
        assert title in text, title
    assert "windows go by this card" in text
    assert "1 good answers that it failed" in text and "2 bad answers that it passed" in text
    assert "Errors by intent or kind" in text and "Causes of unjudged records" in text
    assert rate(36, 39).with_interval in text and "18 (90.0%)" in text
    assert f"banking, sha256 {banking.sha256}" in text  # as the gate names it
    assert "Criteria sha256 unknown" in text


def test_the_card_of_the_gate_says_whether_it_may_and_by_how_much(tmp_path: Path, banking: Policy) -> None:
    good = told(measured("judge-1", 0, n=200))
    text = card_text(good, banking, tmp_path / "good.html")
    low = good.card.accuracy.low
    assert (
        f"Good enough to gate: yes. Its accuracy is at least {low:.3f}, {low - 0.85:.3f} over the bar of 0.85" in text
    )
    assert f"+{low - 0.85:.3f}" in text and "✓ passed" in text and "✕" not in text.split("What is not known")[0]
    bad = card_text(told(measured("judge-1", 20)), banking, tmp_path / "bad.html")
    assert "Good enough to gate: no." in bad and "✕ failed" in bad and "✕ Not good enough" in bad


def test_a_judge_without_scores_or_a_verdict_has_a_page_too(tmp_path: Path, banking: Policy) -> None:
    records = [LabelledRecord(question="q", answer="a", label="pass")]
    for said in (
        Verdict(outcome="pass", score=None, explanation="", judge_id="judge"),
        Verdict(outcome="unjudged", score=None, explanation="", judge_id="judge", cause="busy"),
    ):
        of = Measured(card=judge_card("judge", records, verdicts=[said]), records=records, verdicts=[said])
        assert "Calibration curve" not in card_text(of, banking, tmp_path / "page.html")
        comparison_report([of], [], policy=banking, source="a file", out=tmp_path / "c")
        assert "</html>" in (tmp_path / "c").read_text(encoding="utf-8")


def test_a_group_without_an_error_is_counted_and_not_listed(tmp_path: Path, banking: Policy) -> None:
    text = card_text(measured("judge-1", 1), banking, tmp_path / "page.html")
    assert "2 more, of 26 records together, have no error" in text


def test_a_page_is_named_after_the_judge_and_stays_in_its_folder(tmp_path: Path) -> None:
    for judge_id in ("local-0123", "openai-Qwen/Qwen2.5-7B-rubric-0123", "../../etc/<b>"):
        page = card_page(judge_id, "ontopic-banking", reports=tmp_path)
        assert page.parent == tmp_path
        assert page.name.startswith("judge-card-")
    page = card_page("local-0123", "ontopic-banking", reports=tmp_path)
    assert page.name == "judge-card-ontopic-banking-local-0123.html"
    assert page != card_page("local-0123", "ontopic-travel", reports=tmp_path)  # measured on other labels
    long = [card_page(f"openai-{'m' * 300}-rubric-{digest}", "ontopic-banking", reports=tmp_path) for digest in "12"]
    assert long[0] != long[1] and len(long[0].name) < 255
    assert comparison_page("ontopic-banking", tmp_path) != comparison_page("ontopic-travel", tmp_path)


def test_a_comparison_says_first_who_is_best_and_names_each_beside_its_points(tmp_path: Path, banking: Policy) -> None:
    usage = Usage(records=9, seconds=30, usd=0.31, prompt_tokens=5, completion_tokens=2)
    first, second = measured("judge-1", 2), measured(f"openai-{'m' * 60}-rubric-ab", 9)
    first = first.model_copy(update={"card": first.card.model_copy(update={"usage": usage})})
    out = tmp_path / "page.html"
    sentences = ["judge-1 is right more often: of 39 records", "It may gate."]
    pages = {"judge-1": tmp_path / "judge-card-1.html"}
    comparison_report([first, second], sentences, policy=banking, source="a file", out=out, pages=pages)
    text = text_of(out)
    assert text.startswith(" – 2 judges judge-1 is right more often. Of 39 records Measured on the 40 labelled records")
    assert "30 s, $0.31" in text and "mmm…" in text and f"openai-{'m' * 60}-rubric-ab" in text
    assert 'href="judge-card-1.html"' in out.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["card", "comparison"])
def test_no_text_becomes_markup(tmp_path: Path, banking: Policy, kind: str) -> None:
    page = tmp_path / "page.html"
    hostile = measured(f"judge {HOSTILE}", 3, HOSTILE, n=450)
    if kind == "card":
        card_report(hostile, banking, source=HOSTILE, out=page)
    else:
        ranked = [hostile, measured(f"other {HOSTILE}", 5)]
        comparison_report(ranked, [HOSTILE], policy=banking, source=HOSTILE, out=page)
    assert_inert(page, least=3)


def test_a_judge_that_gets_all_wrong_has_a_page_that_can_be_mailed(tmp_path: Path, banking: Policy) -> None:
    page = tmp_path / "page.html"
    of = measured("judge", 450, "a text of some length, " * 60, n=450)
    records = [each.model_copy(update={"kind": f"intent number {i}"}) for i, each in enumerate(of.records)]
    card = judge_card("judge", records, verdicts=of.verdicts)
    card_report(Measured(card=card, records=records, verdicts=of.verdicts), banking, source="a file", out=page)
    assert page.stat().st_size < 300_000
