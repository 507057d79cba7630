"""The page on a stretch of traffic: its windows with their statuses, and no record's text as markup."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pages import HOSTILE, assert_no_script_is_ended, assert_no_text_is_markup
from values import replace
from word_judge import CARD, LIMITS, WordJudge, labelled_traffic

from ontopic.monitoring.standing import Standing
from ontopic.monitoring.traffic_page import traffic_report
from ontopic.monitoring.window import Counts, Window, window_result
from ontopic.records import Judged, Record
from ontopic.statistics.rates import Rate
from ontopic.statistics.scores import score

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
KNOWN = Standing(score=Rate(value=0.5, low=0.4, high=0.6, n=9), is_corrected=True, labels=200)


def judged(*answers: str, model: str = "1") -> Judged:
    records = [
        Record(
            question=f"Question {i}?",
            answer=answer,
            id=str(i),
            model_version=model,
            asked_at=NOON + timedelta(minutes=i),
        )
        for i, answer in enumerate(answers)
    ]
    return Judged(records=records, verdicts=WordJudge().judge(records))


def window(number: int, *answers: str, model: str = "1") -> Window:
    """A closed window of an hour, with such answers."""
    result = window_result(
        judged(*answers), CARD, limits=LIMITS, counts=Counts(n=len(answers)), labels=labelled_traffic()
    )
    at = NOON + number * timedelta(hours=1)
    return Window(id=number, model_version=model, start=at, end=at, state="closed", closed_at=at, result=result)


def report(out: Path, traffic: Judged, *windows: Window, title: str = "Banking", of: Standing = KNOWN) -> str:
    scores = score(traffic.verdicts)
    traffic_report(title, traffic, scores=scores, of=of, windows=windows, threshold=0.9, out=out)
    return out.read_text(encoding="utf-8")


def test_each_window_stands_with_its_corrected_score_and_status(tmp_path: Path) -> None:
    low = window(0, *["good"] * 4, *["bad"] * 16)
    assert low.result
    windows = [
        replace(low, result=replace(low.result, status="detected")),  # as the chart says
        window(1, *["good"] * 17, *["bad"] * 3),  # raw 0.85, corrected 0.938
        window(2, *["good"] * 16, *["bad"] * 4),  # corrected 0.875
        window(3, "?"),
    ]
    out = tmp_path / "deep" / "er" / "page.html"
    page = report(out, judged("good", "bad", "?"), *windows)
    assert "Windows by their status at the threshold 0.9: **1 detected, 1 ok, 1 suspected, 1 unknown**." in page
    assert "Corrected guardrail score 0.500 [0.400, 0.600] (n=9)" in page
    assert "unknown error" not in page
    assert "3 records, 1 unjudged, asked 2026-03-01 12:00 to 2026-03-01 12:02 UTC" in page
    for shown in windows:
        assert shown.result
        assert shown.label in page
        assert str(shown.result.score) in page
    for status in ("detected", "ok", "suspected", "unknown: no record could be judged"):
        assert f'"{status}"' in page
    assert page.count("<html") == 1
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


def test_an_uncorrected_score_is_called_so_and_its_page_draws_what_the_error_could_do(tmp_path: Path) -> None:
    raw = Standing(score=Rate(value=0.5, low=0.4, high=0.6, n=9), is_corrected=False, labels=7)
    page = report(tmp_path / "page.html", judged("good", "bad"), of=raw)
    assert "Uncorrected guardrail score 0.500 [0.400, 0.600] (n=9)" in page
    assert "the judge's error on this traffic is unknown" in page
    assert "python run.py label --by random -n 193" in page
    assert "What the judge's unknown error could make of the uncorrected 0.500" in page


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_there_is_a_page_without_a_judged_record_and_without_a_window(tmp_path: Path) -> None:
    page = report(tmp_path / "a.html", judged("?", "?", "?"))
    assert "No record failed" in page and "There are no windows yet" in page
    assert "There are no windows yet" in report(tmp_path / "b.html", judged())


def test_the_failed_table_stops_at_200(tmp_path: Path) -> None:
    page = report(tmp_path / "page.html", judged(*["bad"] * 230))
    assert "the first 200 of 230" in page and "Question 199?" in page and "Question 200?" not in page


@pytest.fixture
def hostile_page(tmp_path: Path) -> Path:
    evil = Record(question=HOSTILE, answer=f"bad {HOSTILE}" + "x" * 500, id="0", model_version="<b>m</b>")
    traffic = Judged(records=[evil], verdicts=WordJudge("<i>judge</i>").judge([evil]))
    out = tmp_path / "page.html"
    report(out, traffic, window(0, "bad", model="<b>m</b>"), title="A <b>title</b>")
    return out


def test_no_text_of_a_record_ends_the_script_that_holds_it(hostile_page: Path) -> None:
    assert_no_script_is_ended(hostile_page)


def test_no_text_of_a_record_becomes_markup_in_a_browser(hostile_page: Path, tmp_path: Path) -> None:
    assert_no_text_is_markup(hostile_page, tmp_path / "profile")
