"""The loop's monitoring: windows are cut in order, and those under the threshold are found."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from ontopic.judges.cards.card import JudgeCard
from ontopic.monitoring.loop import Monitored, cut_windows, monitor
from ontopic.records import Outcome, Record, Verdict
from ontopic.reports.verdict_frame import verdict_frame
from ontopic.statistics.correction import corrected
from ontopic.statistics.rates import rate
from ontopic.statistics.scores import score

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CARD = JudgeCard(
    judge_id="judge",
    accuracy=rate(90, 100),
    kappa=rate(80, 100),
    sensitivity=rate(45, 50),
    specificity=rate(45, 50),
    unjudged=0,
)
OUTCOMES: dict[str, Outcome] = {"p": "pass", "f": "fail", "u": "unjudged"}
HOSTILE = '</script><script>alert("owned")</script> {{definition}} <img src=x onerror=alert(1)>\n=HYPERLINK("x")\x00'


def traffic(word: str, text: str = "") -> pd.DataFrame:
    """One judged record a letter, p(ass), f(ail) or u(njudged), a minute apart."""
    records = [
        Record(
            question=f"{text} question {i}?",
            answer=f"{text} answer",
            in_scope=None,
            id=str(i),
            model_version="1",
            asked_at=NOON + timedelta(minutes=i),
        )
        for i in range(len(word))
    ]
    verdicts = [
        Verdict(
            outcome=OUTCOMES[letter],
            score=None,
            explanation=text,
            judge_id="judge",
            in_scope=True,
            declined=letter == "f",
            cause=text or None,
        )
        for letter in word
    ]
    return verdict_frame(records, verdicts)


def watch(folder: Path, frame: pd.DataFrame, window_records: int, threshold: float = 0.8) -> Monitored:
    return monitor(
        "Title",
        frame,
        card=CARD,
        window_records=window_records,
        threshold=threshold,
        report=folder / "r" / "report.html",
    )


@pytest.mark.parametrize(("n", "size", "sizes"), [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 10, [3]), (2, 1, [1, 1])])
def test_windows_are_cut_in_order_and_the_last_may_be_shorter(n: int, size: int, sizes: list[int]) -> None:
    windows = cut_windows(traffic("p" * n), size)
    assert [window.scores.guardrail_score.n for window in windows] == sizes
    starts = [NOON + timedelta(minutes=size * i) for i in range(len(sizes))]
    assert [w.label for w in windows] == [f"{i}: {start:%Y-%m-%d %H:%M:%S}" for i, start in enumerate(starts, start=1)]


def test_a_window_is_scored_on_its_own_records() -> None:
    first, second = cut_windows(traffic("ppffuppp"), 4)
    assert first.scores.guardrail_score == rate(2, 4)
    assert first.scores.over_refusal == rate(2, 4)
    assert (second.scores.guardrail_score, second.scores.unjudged) == (rate(3, 3), 1)


def test_records_without_a_time_are_cut_too() -> None:
    frame = verdict_frame(
        [Record(question="q", answer="a")] * 3,
        [Verdict(outcome="pass", score=1.0, explanation="", judge_id="judge")] * 3,
    )
    assert [window.label for window in cut_windows(frame, 2)] == ["1", "2"]


def test_exactly_the_windows_under_the_threshold_are_low(tmp_path: Path) -> None:
    # 0.6, 1.0, 0.8 (at the threshold), 0.2, nothing judged, 0.75 of four judged
    frame = traffic("pppff" + "ppppp" + "ppppf" + "pffff" + "uuuuu" + "pppfu")
    monitored = watch(tmp_path, frame, 5)
    assert len(monitored.windows) == 6
    assert monitored.low == [monitored.windows[i] for i in (0, 3, 5)]
    assert monitored.report.read_text(encoding="utf-8").count("<html") == 1


def test_good_traffic_has_a_report_and_no_low_window(tmp_path: Path) -> None:
    monitored = watch(tmp_path, traffic("pppp"), 2)
    assert monitored.low == []
    assert monitored.report.is_file()


def test_the_scores_are_of_all_windows_and_corrected_by_the_card(tmp_path: Path) -> None:
    frame = traffic("pppfuppp")
    monitored = watch(tmp_path, frame, 4)
    assert monitored.scores.guardrail_score == rate(6, 7)
    assert monitored.scores.unjudged == 1
    assert monitored.corrected == corrected(rate(6, 7), CARD.sensitivity, specificity=CARD.specificity)
    plain = json.loads(monitored.scores.model_dump_json())
    assert plain["unjudged"] == 1
    assert plain["leak"] == {"value": None, "low": 0.0, "high": 1.0, "n": 0}


def test_hostile_text_in_records_reaches_no_page(tmp_path: Path) -> None:
    monitored = watch(tmp_path, traffic("ffuu", HOSTILE), 2)
    assert len(monitored.low) == 1
    page = monitored.report.read_text(encoding="utf-8")
    assert "owned" in page
    assert '<script>alert("owned")' not in page
    assert "<img src=x" not in page


def test_only_unjudged_traffic_is_not_low(tmp_path: Path) -> None:
    monitored = watch(tmp_path, traffic("uuuu"), 2)
    assert monitored.low == []
    assert monitored.scores == score([Verdict(outcome="unjudged", score=None, explanation="", judge_id="judge")] * 4)
