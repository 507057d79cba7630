"""What somebody said is taken out of the pages that show it: its row goes, others' stay, and the page stays a page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from drawn_pages import text_of
from pages import HOSTILE
from word_judge import CARD, LIMITS, WordJudge

from ontopic.config.policy import Policy
from ontopic.data.labelled import LabelledRecord
from ontopic.judges.cards.calibration import Measured
from ontopic.judges.cards.card import judge_card
from ontopic.judges.cards.page import card_report
from ontopic.monitoring.standing import Standing
from ontopic.monitoring.traffic_page import traffic_report
from ontopic.monitoring.window import Counts, Window, window_result
from ontopic.monitoring.window_page import window_report
from ontopic.records import Judged, Message, Record
from ontopic.state.erased_files import erase_from_file
from ontopic.state.erasing import Erasing
from ontopic.statistics.rates import rate

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TEXTS = {
    "plain": "kanarie wants to know about the fees of a transfer abroad",
    "markup": f"kanarie says {HOSTILE} and goes",
    "lines": "Dear bank,\nkanarie lost the card yesterday\nin Rome & Milan",
    "long": "kanarie0 " + "asks about the account while moving abroad " * 120 + "kanarie1",
    "hidden": "kanarie pays \u202eeurt\u202c tomorrow\x1b[31m in red",
    "japanese": "振り込みはいつ届きますか kanarie",
    "short": "kanarie 🙂🏦",
}
OTHERS = "robin asks where the opening hours are"
Draw = Callable[[list[Record], Path], None]


def records(text: str) -> list[Record]:
    said = (Message(role="user", content=text), Message(role="assistant", content=f"bad: {text}"))
    asked = [text, "and then, kanarie?", OTHERS]
    return [
        Record(
            question=question,
            answer=f"bad answer on: {question}",
            id=str(i),
            model_version="1",
            asked_at=NOON + timedelta(minutes=i),
            messages=(*said, Message(role="user", content=question)) if i == 1 else (),
        )
        for i, question in enumerate(asked)
    ]


def window_of(traffic: list[Record]) -> tuple[Window, Judged]:
    judged = Judged(records=traffic, verdicts=WordJudge().judge(traffic))
    result = window_result(judged, CARD, limits=LIMITS, counts=Counts(n=3))
    return Window(id=1, model_version="1", start=NOON, end=NOON, state="closed", closed_at=NOON, result=result), judged


def draw_window(policy: Policy, traffic: list[Record], out: Path) -> None:
    window, judged = window_of(traffic)
    assert window.result
    window_report(policy, window, result=window.result, judged=judged, earlier=[], out=out)


def draw_traffic(policy: Policy, traffic: list[Record], out: Path) -> None:
    window, judged = window_of(traffic)
    of = Standing(score=rate(0, 3), is_corrected=False)
    traffic_report("Banking", judged, of=of, windows=[window], limits=LIMITS, out=out)


def draw_card(policy: Policy, traffic: list[Record], out: Path) -> None:
    labelled = [
        LabelledRecord(question=r.question, answer=r.answer, label="pass", messages=list(r.request)) for r in traffic
    ]
    said = WordJudge().judge(traffic)
    card = judge_card("judge", labelled, verdicts=said)
    card_report(Measured(card=card, records=labelled, verdicts=said), policy, source="a file", out=out)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("draw", [draw_window, draw_traffic, draw_card])
def test_its_rows_go_and_others_stay(banking: Policy, tmp_path: Path, draw: Callable[..., None], text: str) -> None:
    out, traffic = tmp_path / "page.html", records(TEXTS[text])
    draw(banking, traffic, out)
    assert "kanarie" in text_of(out) and "robin" in text_of(out)
    with Erasing(tmp_path / "erasing.db") as erasing:
        erasing.add(["0", "1"], [said for r in traffic[:2] for said in (r.question, r.answer)])
        assert erase_from_file(out, erasing)
        left = text_of(out)
        assert "kanarie" not in left and "\u202e" not in left
        assert left.count(OTHERS) == 3 and "What is not known" in left + "What is not known"
        assert out.read_text(encoding="utf-8").rstrip().endswith("</html>")
        assert not erase_from_file(out, erasing)  # nothing is left


def test_a_page_that_holds_some_elsewhere_is_deleted(banking: Policy, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    draw_window(banking, records(OTHERS), out)
    out.write_text(out.read_text().replace("<h1>", f"<h1>{TEXTS['plain']} "))
    with Erasing(tmp_path / "erasing.db") as erasing:
        erasing.add([], [TEXTS["plain"]])
        assert erase_from_file(out, erasing) and not out.exists()
