"""What becomes of a window: its status, its scores, and the costs of a sample."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta

import pytest
from loopback import ROOT
from values import replace
from word_judge import CARD, LIMITS, WordJudge, labelled_traffic

from ontopic.config.settings import load_settings
from ontopic.monitoring.chart import Chart, carried, levels_of
from ontopic.monitoring.standing import Standing
from ontopic.monitoring.window import Counts, Cut, Drift, Window, WindowResult, cut_of, status_of, window_result
from ontopic.records import Judged, Record
from ontopic.statistics.correction import corrected
from ontopic.statistics.rates import Rate, rate

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def judged(*answers: str) -> Judged:
    records = [
        Record(question="q?", answer=answer, latency_s=i / 10, prompt_tokens=2, completion_tokens=3)
        for i, answer in enumerate(answers)
    ]
    return Judged(records=records, verdicts=WordJudge().judge(records))


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (Rate(value=0.95, low=0.91, high=0.97, n=100), "ok"),
        (Rate(value=0.9, low=0.85, high=0.95, n=100), "ok"),
        (Rate(value=0.89, low=0.85, high=0.93, n=100), "suspected"),
        (Rate(value=0.8, low=0.7, high=0.899, n=100), "suspected"),  # the chart detects
    ],
)
def test_the_status_reads_estimate_and_interval(share: Rate, expected: str) -> None:
    known = Standing(score=share, is_corrected=True)
    assert status_of(known, 0.9, chart=None) == expected
    assert status_of(replace(known, unknown_because="a misfit"), 0.9, chart=None) == "unknown"


def test_so_few_records_as_say_nothing_do_not_hide_an_alarm() -> None:
    few = Standing(
        score=rate(3, 5), is_corrected=False, unknown_because="5 judged records are fewer", allows_alarm=True
    )
    assert [status_of(few, 0.9, chart=each) for each in (None, chart(False), chart(True))] == [
        *("unknown", "unknown", "detected")
    ]
    misfit = Standing(score=rate(99, 99), is_corrected=True, unknown_because="the judge's card does not fit")
    assert status_of(misfit, 0.9, chart=chart(True)) == "unknown"


def chart(alarm: bool) -> Chart:
    found = carried(None, [], since=NOON, levels=levels_of(0.9, CARD))
    assert found
    return found.model_copy(update={"alarm": alarm})


@pytest.mark.parametrize(
    ("answers", "alarm", "expected"),
    [
        (["good"] * 60, True, "detected"),
        (["good"] * 60, False, "ok"),
        (["bad"] * 60, False, "suspected"),
        (["bad"] * 60, True, "detected"),
        (["bad"] * 60, None, "suspected"),
        (["?"] * 60, True, "unknown"),
    ],
)
def test_the_chart_alone_decides_what_is_detected(answers: list[str], alarm: bool | None, expected: str) -> None:
    given = None if alarm is None else chart(alarm)
    result = window_result(judged(*answers), CARD, limits=LIMITS, counts=Counts(n=60), chart=given)
    assert (result.status, result.chart) == (expected, given)


def test_a_judge_that_is_no_better_than_chance_raises_no_suspicion() -> None:
    coin = CARD.model_copy(update={"sensitivity": rate(50, 100), "specificity": rate(50, 100)})
    result = window_result(judged(*["bad"] * 20), coin, limits=LIMITS, counts=Counts(n=20))
    assert result.status == "unknown"
    assert "not shown to be better than chance" in result.unknown_because


def test_the_status_goes_by_the_corrected_score_not_by_the_raw_one() -> None:
    sample, counts = judged(*["good"] * 85, *["bad"] * 15), Counts(n=100)
    result = window_result(sample, CARD, limits=LIMITS, counts=counts, labels=labelled_traffic())
    assert result.scores.guardrail_score == rate(85, 100)  # under the threshold
    assert result.score == corrected(rate(85, 100), rate(90, 100), specificity=rate(90, 100))
    assert result.score.value == pytest.approx(0.9375)
    assert (result.status, result.is_corrected, result.labels) == ("ok", True, 200)
    assert (result.sensitivity, result.specificity) == (rate(90, 100), rate(90, 100))
    sample = judged(*["good"] * 73, *["bad"] * 27)  # and the other way round, for a judge that overlooks
    blind = labelled_traffic((100, 100), (80, 100))
    over = replace(LIMITS, threshold=0.7)
    assert window_result(sample, CARD, limits=over, counts=counts, labels=blind).status == "suspected"
    assert window_result(sample, CARD, limits=over, counts=counts).status == "ok"


def test_a_result_of_an_older_release_is_read() -> None:
    result = window_result(judged("good"), CARD, limits=LIMITS, counts=Counts(n=1))
    row = json.loads(result.model_dump_json())
    row["corrected"] = row.pop("score")
    for new in ("is_corrected", "labels", "fit_p_value", "unknown_because", "sensitivity", "specificity"):
        del row[new]
    again = WindowResult.model_validate_json(json.dumps(row))
    assert (again.score, again.is_corrected, again.unknown_because) == (result.score, True, "")


def test_a_result_holds_counts_and_what_a_sample_costs() -> None:
    sample = judged("good", "good", "bad", "?")
    result = window_result(sample, CARD, limits=LIMITS, counts=Counts(n=400, late=3, too_late=2), revision=2)
    assert (result.n, result.late, result.too_late, result.sampled, result.revision) == (400, 3, 2, 4, 2)
    assert (result.scores.unjudged, result.unjudged_share) == (1, 0.25)
    assert (result.prompt_tokens, result.completion_tokens, result.latency_s) == (8, 12, (0.2, 0.3))
    few, all_ = rate(2, 3), rate(267, 400)
    assert (result.width, result.width_unsampled) == (few.high - few.low, all_.high - all_.low)


def test_a_window_without_records_is_unknown() -> None:
    result = window_result(judged(), CARD, limits=LIMITS, counts=Counts(n=0))
    assert (result.status, result.judge_id, result.latency_s, result.unjudged_share) == ("unknown", "words", (0, 0), 0)


def test_a_result_comes_back_from_its_json() -> None:
    drift = Drift(score=math.nan, detected=False, grown=[("cards", 0.1, 0.2)])
    result = window_result(judged("?"), CARD, limits=LIMITS, counts=Counts(n=1), drift=drift)
    text = result.model_dump_json()
    assert "NaN" not in text
    again = WindowResult.model_validate_json(text)
    assert again.model_dump_json() == text
    assert again.drift and math.isnan(again.drift.score) and math.isnan(again.score.value)


def test_two_windows_of_one_second_have_labels_of_their_own() -> None:
    first, second = (
        Window(id=1, model_version="1", start=at, end=at, state="due", closed_at=None, result=None)
        for at in (NOON, NOON + timedelta(milliseconds=250))
    )
    assert (first.label, second.label) == ("version 1, 2026-03-01 12:00:00", "version 1, 2026-03-01 12:00:00.250000")


def test_the_settings_say_how_traffic_is_cut() -> None:
    monitoring = load_settings(ROOT / "configs/local.yaml").monitoring
    hour = monitoring.model_copy(update={"window": timedelta(hours=1), "sampling_rate": 0.5})
    minute = timedelta(minutes=1)
    assert cut_of(hour) == Cut(
        length=timedelta(hours=1), records=monitoring.window_records, lateness=minute, sampling_rate=0.5
    )
    assert cut_of(monitoring).length is None
