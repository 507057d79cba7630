"""Pages on judges: what they show, and that no text of a label, an answer or a judge becomes markup."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import HOSTILE, rendered

from ontopic.data.labelled import LabelledRecord
from ontopic.judges.cards.calibration import Measured
from ontopic.judges.cards.card import judge_card
from ontopic.judges.cards.page import card_page, card_report, comparison_report
from ontopic.records import Verdict
from ontopic.statistics.rates import rate


def measured(judge_id: str, wrong: int, text: str = "text") -> Measured:
    """Forty records, right and wrong answers by turns, of which the judge gets the first ones wrong."""
    records, verdicts = [], []
    for i in range(40):
        label = "pass" if i % 2 else "fail"
        said = label if i >= wrong else "fail" if label == "pass" else "pass"
        row = {"question": f"{text} {i}?", "answer": text, "label": label, "kind": text}
        records.append(LabelledRecord.model_validate(row))
        verdicts.append(
            Verdict(outcome=said, score=0.9 if said == "pass" else 0.2, explanation=text, judge_id=judge_id)
        )  # type: ignore[arg-type]
    verdicts[-1] = Verdict(outcome="unjudged", score=None, explanation="", judge_id=judge_id, cause=text)
    return Measured(card=judge_card(judge_id, records, verdicts=verdicts), records=records, verdicts=verdicts)


def test_a_card_page_shows_rates_confusion_and_what_the_judge_got_wrong(tmp_path: Path) -> None:
    page = tmp_path / "deep" / "page.html"
    card_report(measured("judge-1", 3), "the calibration split", out=page)
    text = page.read_text(encoding="utf-8")
    assert "Judge card: judge-1" in text
    for title in ("Accuracy", "Kappa", "Calibration curve", "Confusion matrix", "Errors by intent or kind"):
        assert title in text, title
    assert "Records that it got wrong, the surest first (3)" in text
    assert "Causes of unjudged records (1)" in text
    assert "criteria unknown (sha256)" in text
    share = rate(36, 39)
    assert f"95 % interval {share.low:.3f} to {share.high:.3f}, n = 39" in text


def test_a_judge_without_scores_or_a_verdict_has_a_page_too(tmp_path: Path) -> None:
    records = [LabelledRecord(question="q", answer="a", label="pass")]
    for said in (
        Verdict(outcome="pass", score=None, explanation="", judge_id="judge"),
        Verdict(outcome="unjudged", score=None, explanation="", judge_id="judge", cause="busy"),
    ):
        card_report(
            Measured(card=judge_card("judge", records, verdicts=[said]), records=records, verdicts=[said]),
            "a file",
            out=tmp_path / "page.html",
        )
        assert "The judge gave no score." in (tmp_path / "page.html").read_text(encoding="utf-8")
        comparison_report(
            [Measured(card=judge_card("judge", records, verdicts=[said]), records=records, verdicts=[said])],
            [],
            source="a file",
            out=tmp_path / "c",
        )
        assert "</html>" in (tmp_path / "c").read_text(encoding="utf-8")


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


@pytest.mark.parametrize("kind", ["card", "comparison"])
def test_no_text_becomes_markup(tmp_path: Path, kind: str) -> None:
    page = tmp_path / "page.html"
    hostile = measured(f"judge {HOSTILE}", 3, HOSTILE)
    if kind == "card":
        card_report(hostile, HOSTILE, out=page)
    else:
        comparison_report([hostile, measured(f"other {HOSTILE}", 5)], [HOSTILE], source=HOSTILE, out=page)
    dom = rendered(page, tmp_path / "profile")
    assert dom.count("&lt;img src=x onerror=") >= 3
    for markup in ("<img", "<b>bold", "<title>owned", '="javascript:', '="http://127'):
        assert markup not in dom, markup
