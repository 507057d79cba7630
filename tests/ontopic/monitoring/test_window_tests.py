"""A window's tests: they give the very status that the window has, each with the margin to its limit."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from values import replace
from word_judge import CARD, WordJudge, labelled_traffic

from ontopic.config.policy import Policy
from ontopic.monitoring.chart import Chart, carried, levels_of
from ontopic.monitoring.standing import limits_of
from ontopic.monitoring.thumbs import Thumbs
from ontopic.monitoring.window import Counts, Drift, WindowResult, window_result
from ontopic.monitoring.window_tests import WindowTest, status_by, window_tests
from ontopic.records import Judged, Record
from ontopic.statistics.correction import Errors
from ontopic.statistics.rates import Rate, rate

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
COIN = CARD.model_copy(update={"sensitivity": rate(50, 100), "specificity": rate(50, 100)})


def judged(passes: int, fails: int, unjudged: int = 0) -> Judged:
    answers = ["good"] * passes + ["bad"] * fails + ["?"] * unjudged
    records = [
        Record(question="q?", answer=answer, model_version="1", asked_at=NOON + timedelta(seconds=i), id=str(i))
        for i, answer in enumerate(answers)
    ]
    return Judged(records=records, verdicts=WordJudge().judge(records))


def chart_of(alarm: bool | None, policy: Policy) -> Chart | None:
    found = carried(None, [(NOON, True)] * 60, since=NOON, levels=levels_of(policy.alert_threshold, CARD))
    at = NOON if alarm else None
    return found.model_copy(update={"alarm": alarm, "alarmed_at": at}) if found and alarm is not None else None


def result_of(
    policy: Policy, given: tuple[int, int, int], *, alarm: bool | None = None, card: Errors = CARD, labels: bool = False
) -> WindowResult:
    sample = judged(*given)
    return window_result(
        sample,
        card,  # type: ignore[arg-type]
        limits=limits_of(policy),
        counts=Counts(n=sum(given)),
        chart=chart_of(alarm, policy),
        labels=labelled_traffic((95, 100), (95, 100)) if labels else None,
    )


@pytest.mark.parametrize(
    ("card", "labels"), [(CARD, False), (CARD, True), (COIN, False)], ids=["uncorrected", "corrected", "coin"]
)
@pytest.mark.parametrize("alarm", [None, False, True])
@pytest.mark.parametrize("given", [(60, 0, 3), (0, 60, 0), (51, 9, 0), (50, 10, 0), (0, 9, 0), (60, 0, 9), (0, 0, 9)])
def test_the_tests_give_the_status_that_the_window_has(
    banking: Policy, given: tuple[int, int, int], alarm: bool | None, *, card: Errors, labels: bool
) -> None:
    result = result_of(banking, given, alarm=alarm, card=card, labels=labels)
    assert status_by(window_tests(result, banking), allows_alarm=result.allows_alarm) == result.status


def named(tests: list[WindowTest], begin: str) -> WindowTest:
    (found,) = [test for test in tests if test.name.startswith(begin)]
    return found


def test_each_has_its_margin_to_its_limit(banking: Policy) -> None:
    tests = window_tests(result_of(banking, (45, 15, 2), alarm=False), banking)
    assert [named(tests, of).margin for of in ("Judged", "Share of", "Guardrail score")] == [
        10,
        pytest.approx(0.05 - 2 / 62),
        pytest.approx(0.75 - 0.85),
    ]
    evidence = named(tests, "Evidence")
    assert evidence.margin and 0.9 < evidence.margin < 1
    assert [named(tests, of).passed for of in ("Judged", "Share of", "Guardrail score", "Evidence")] == [
        *(True, True, False, True)
    ]


def test_an_alarm_that_is_not_over_fails_without_a_margin_that_says_otherwise(banking: Policy) -> None:
    evidence = named(window_tests(result_of(banking, (60, 0, 0), alarm=True), banking), "Evidence")
    assert (evidence.passed, evidence.margin) == (False, None)
    assert "on since 2026-03-01 12:00:00 UTC" in evidence.sentence


def test_what_is_not_held_says_why_and_neither_passes_nor_fails(banking: Policy) -> None:
    unknown = result_of(banking, (9, 0, 0))
    drift = Drift(score=math.nan, detected=False, grown=[], n=9, reference=3)
    thumbs = Thumbs(liked=rate(1, 2), since=rate(1, 2), least=0.5)
    tests = window_tests(replace(unknown, drift=drift, thumbs=thumbs), banking)
    for begin, why in (
        ("Guardrail score", "not known where"),
        ("Evidence", "there is no chart"),
        ("Distance", "too few"),
        ("Thumbs", "20 are the least"),
    ):
        test = named(tests, begin)
        assert (test.passed, test.margin) == (None, None) and why in test.sentence


def test_topics_thumbs_and_languages_are_tests_too_and_give_no_status(banking: Policy) -> None:
    far = Drift(score=1e-9, detected=True, grown=[], distance=0.4, level=0.01, n=300, reference=500)
    result = replace(
        result_of(banking, (60, 0, 0)),
        drift=far,
        thumbs=Thumbs(liked=rate(1, 30), since=rate(1, 30), least=0.5),
        unjudged_languages={"de": Rate(value=0.3, low=0.2, high=0.4, n=24)},
    )
    tests = window_tests(result, banking)
    failed = [test for test in tests if test.passed is False]
    assert [test.name.split()[0] for test in failed] == ["Share", "Distance", "Thumbs"]
    assert [round(test.margin or 0, 3) for test in failed] == [-0.25, -0.3, round(rate(1, 30).high - 0.5, 3)]
    assert status_by(tests, allows_alarm=False) == result.status == "ok"
    chance = replace(result, drift=replace(far, score=0.5, detected=False))
    assert named(window_tests(chance, banking), "Distance").margin is None  # passed, beyond the limit
