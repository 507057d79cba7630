"""The page on a stretch of traffic: its windows with their statuses, and no record's text as markup."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from drawn_pages import assert_inert, text_of
from pages import HOSTILE
from values import replace
from word_judge import CARD, LIMITS, WordJudge, labelled_traffic

from ontopic.monitoring.chart import carried, levels_of
from ontopic.monitoring.standing import Standing
from ontopic.monitoring.traffic_page import traffic_report
from ontopic.monitoring.window import Counts, Window, window_result
from ontopic.records import Judged, Message, Record
from ontopic.reports.measurement import MOST
from ontopic.statistics.rates import Rate, rate

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
    traffic_report(title, traffic, of=of, windows=windows, limits=LIMITS, out=out)
    return text_of(out)


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
    assert "Version 1 may have drifted: it keeps to the subject in 50 % of its answers" in page
    assert "Its windows, by their status at the threshold 0.9: 1 detected, 1 ok, 1 suspected, 1 unknown." in page
    assert "Guardrail score 0.500 [0.400, 0.600] (n=9), with the judge's own error taken out" in page
    assert "the judge itself passes 0.500 [0.095, 0.905] (n=2)" in page
    assert "unknown error" not in page
    assert "3, of which 1 unjudged" in page and "asked 2026-03-01 12:00:00 to 12:02:00 UTC" in page
    tests = page.split("Tests, with their margin")[1].split("The records")[0]
    assert "✕ failed Guardrail score" in tests and "-0.400" in tests and "✓ passed Judged records" in tests
    for shown in windows:
        assert shown.result
        assert f"{shown.id}: {shown.start:%Y-%m-%d %H:%M:%S}" in page
        assert shown.result.score.with_interval in page
    for status in ("✕ detected", "✓ ok", "✕ suspected", "– unknown", "no record could be judged"):
        assert status in page, status
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


def test_its_status_is_that_of_the_rule_of_windows(tmp_path: Path) -> None:
    low, alarmed = window(0, *["bad"] * 9), window(1, *["good"] * 9)
    assert low.result and alarmed.result
    chart = carried(None, [], since=NOON, levels=levels_of(0.9, CARD))
    assert chart
    on = chart.model_copy(update={"alarm": True})
    alarmed = replace(alarmed, result=replace(alarmed.result, chart=on, status="detected"))
    assert "Version 1 has drifted" in report(tmp_path / "a.html", judged("good"), low, alarmed)
    high = replace(KNOWN, score=Rate(value=0.95, low=0.9, high=1, n=99))
    assert "✓ Ok" in report(tmp_path / "b.html", judged("good"), low, of=high)


def test_an_uncorrected_score_is_called_so_and_its_page_draws_what_the_error_could_do(tmp_path: Path) -> None:
    raw = Standing(score=Rate(value=0.5, low=0.4, high=0.6, n=9), is_corrected=False, labels=7)
    page = report(tmp_path / "page.html", judged("good", "bad"), of=raw)
    assert "Guardrail score 0.500 [0.400, 0.600] (n=9), uncorrected" in page
    assert "the judge's error on this traffic is unknown" in page
    assert "python run.py label --by random -n 193" in page
    assert "What the judge's unknown error could make of the uncorrected 0.500" in page


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_there_is_a_page_without_a_judged_record_and_without_a_window(tmp_path: Path) -> None:
    unknown = Standing(score=rate(0, 0), is_corrected=False, unknown_because="no record could be judged")
    page = report(tmp_path / "a.html", judged("?", "?", "?"), of=unknown)
    assert "It is not known where version 1 stands: no record could be judged." in page
    assert "3 that the judge could not judge" in page and "There are no windows yet" in page
    assert "There are no windows yet" in report(tmp_path / "b.html", judged(), of=unknown)


def test_of_many_failures_the_first_are_shown_and_the_others_counted(tmp_path: Path) -> None:
    page = report(tmp_path / "page.html", judged(*["bad"] * 450))
    assert "450 that failed otherwise" in page
    assert f"{450 - MOST} more are not shown here; python run.py traffic export has them all." in page
    assert page.count("Question ") == MOST


def test_texts_of_any_length_leave_the_page_small(tmp_path: Path) -> None:
    traffic = judged(*["bad " + "long answer & more, " * 400] * 450)
    out = tmp_path / "page.html"
    report(out, traffic, window(0, "bad"))
    assert out.stat().st_size < 500_000


def test_the_conversation_before_a_failure_unfolds(tmp_path: Path) -> None:
    said = tuple(Message(role=role, content=f"{role} said it") for role in ("system", "user", "assistant"))  # type: ignore[arg-type]
    asked = Message(role="user", content="and then?")
    record = Record(question="and then?", answer="bad", id="1", model_version="1", messages=(*said, asked))
    page = report(tmp_path / "page.html", Judged(records=[record], verdicts=WordJudge().judge([record])))
    assert "The whole conversation (4 messages)" in page and "Assistant assistant said it" in page


def test_failures_stand_by_kind_and_the_surest_come_first(tmp_path: Path) -> None:
    traffic = judged("bad", "bad", "bad", "bad")
    kinds = [(False, False), (True, True), (None, None), (False, False)]
    verdicts = [
        replace(verdict, in_scope=in_scope, declined=declined, score=0.4 - 0.1 * i)
        for i, (verdict, (in_scope, declined)) in enumerate(zip(traffic.verdicts, kinds, strict=True))
    ]
    page = report(tmp_path / "page.html", replace(traffic, verdicts=verdicts))
    order = ["2 that leaked", "Question 3?", "Question 0?", "1 over-refused", "Question 1?", "1 that failed otherwise"]
    places = [page.index(each) for each in order]
    assert places == sorted(places)


@pytest.mark.parametrize("n", [1, 450])
def test_no_text_of_a_record_is_markup(tmp_path: Path, n: int) -> None:
    records = [
        Record(question=HOSTILE, answer=f"bad {HOSTILE}" + "x" * 500, id=str(i), model_version="<b>m</b>")
        for i in range(n)
    ]
    traffic = Judged(records=records, verdicts=WordJudge("<i>judge</i>").judge(records))
    out = tmp_path / "page.html"
    report(out, traffic, window(0, "bad", model="<b>m</b>"), title="A <b>title</b>")
    assert_inert(out, least=3)
    assert "x" * 500 in text_of(out)
