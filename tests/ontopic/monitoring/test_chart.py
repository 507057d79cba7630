"""The chart over all records: few false alarms at any cadence, and a fall is found and not forgotten."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ontopic.monitoring.chart import Chart, carried, levels_of, outcomes_of
from ontopic.records import EARLIEST, Judged, Record, Verdict
from ontopic.statistics.rates import Rate, rate

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
CARD = SimpleNamespace(sensitivity=rate(475, 509), specificity=rate(281, 309))


def stream(share: float, n: int, *, seed: int, day: float = 0, a_day: int = 120) -> list[tuple[datetime, bool]]:
    passes = np.random.default_rng(seed).random(n) < share
    return [(START + (day + i / a_day) * DAY, bool(passed)) for i, passed in enumerate(passes)]


def charted(*outcomes: list[tuple[datetime, bool]], card: Any = CARD, threshold: float = 0.85) -> Chart:
    chart = None
    for part in outcomes:
        chart = carried(chart, part, since=START, levels=levels_of(threshold, card))
    assert chart is not None
    return chart


def passing(truth: float) -> float:
    return truth * CARD.sensitivity.value + (1 - truth) * (1 - CARD.specificity.value)


def drawn(seed: int) -> Any:
    """A card as its labels might have come out."""
    chance = np.random.default_rng(seed)
    passes, fails = chance.binomial(509, CARD.sensitivity.value), chance.binomial(309, CARD.specificity.value)
    return SimpleNamespace(sensitivity=rate(int(passes), 509), specificity=rate(int(fails), 309))


def test_how_traffic_is_cut_changes_nothing() -> None:
    outcomes = stream(passing(0.82), 1200, seed=3)
    whole = charted(outcomes)
    for size in (1, 5, 100):
        assert charted(*[outcomes[i : i + size] for i in range(0, len(outcomes), size)]) == whole
    assert whole.n == 1200
    assert whole.passes == sum(passed for _, passed in outcomes)


def test_a_month_seldom_has_a_false_alarm_and_a_fall_is_found_within_twelve_days() -> None:
    """A cut of benchmarks/alarms.py, with the card's labels drawn anew each month."""
    false = [bool(charted(stream(passing(0.87), 3600, seed=i), card=drawn(i)).alarmed_at) for i in range(40)]
    found = [
        charted(stream(passing(0.80), 1440, seed=i), card=drawn(i)).alarmed_at is not None for i in range(100, 200)
    ]
    assert sum(false) <= 6  # 1.8 are expected
    assert sum(found) >= 46  # 54 are


def test_the_limit_is_100_days_of_traffic() -> None:
    slow, busy = charted(stream(1, 600, seed=0, a_day=120)), charted(stream(1, 600, seed=0, a_day=300))
    assert slow.limit == pytest.approx(100 * 120, rel=0.01)
    assert busy.limit == pytest.approx(100 * 300, rel=0.01)
    assert charted(stream(1, 400, seed=0, a_day=1_000_000)).limit == 100 * 400  # a day at least
    assert charted(stream(1, 60, seed=0, a_day=1)).limit == 100 * 15


@pytest.mark.parametrize(("share", "n"), [(0.0, 50), (0.25, 60), (0.5, 120)])
def test_a_collapse_is_found_at_once_but_not_in_fewer_than_50_records(share: float, n: int) -> None:
    outcomes = stream(share, n, seed=1)
    assert charted(outcomes).alarm
    assert not charted(outcomes[:49]).alarm


def test_the_400_records_of_a_loop_tell_an_untrained_model_from_a_good_one() -> None:
    assert all(charted(stream(passing(0.5), 400, seed=i, a_day=100_000)).alarm for i in range(20))
    assert not any(charted(stream(passing(0.9), 400, seed=i, a_day=100_000)).alarm for i in range(50))


def test_an_alarm_lasts_through_a_better_day_and_ends_when_the_evidence_is_gone() -> None:
    bad = charted(stream(0.3, 120, seed=1))
    assert bad.alarm and bad.alarmed_at
    better = carried(bad, stream(0.9, 60, seed=2, day=1), since=START, levels=levels_of(0.85, CARD))
    assert better and better.alarm and better.alarmed_at == bad.alarmed_at
    well = carried(better, stream(0.9, 600, seed=3, day=2), since=START, levels=levels_of(0.85, CARD))
    assert well and not well.alarm and well.statistic <= 0.01 * well.limit


def test_a_run_of_slightly_low_windows_is_pooled() -> None:
    windows = [stream(passing(0.82), 120, seed=i, day=i) for i in range(40)]
    chart, low = None, 0
    for window in windows:
        chart = carried(chart, window, since=START, levels=levels_of(0.85, CARD))
        low += carried(None, window, since=START, levels=levels_of(0.85, CARD)).alarm  # type: ignore[union-attr]
    assert chart and chart.alarm and low == 0  # no window alone would have told it


def test_what_was_asked_before_the_start_does_not_count() -> None:
    before, after = stream(0.2, 120, seed=1, day=-1), stream(1.0, 30, seed=2)
    chart = charted([*before, *after])
    assert (chart.n, chart.passes, chart.alarm, chart.since) == (30, 30, False, START)
    # An alarm of an earlier start is over: something was done about it.
    bad = charted(stream(0.2, 120, seed=1))
    again = carried(bad, stream(1.0, 10, seed=2, day=2), since=START + 2 * DAY, levels=levels_of(0.85, CARD))
    assert again and (again.n, again.alarm, again.since) == (10, False, START + 2 * DAY)


def test_without_a_known_start_it_is_the_first_record() -> None:
    chart = carried(None, stream(0.9, 30, seed=2, day=5), since=EARLIEST, levels=levels_of(0.85, None))
    assert chart and chart.since == START + 5 * DAY
    later = carried(chart, stream(0.9, 30, seed=2, day=6), since=EARLIEST, levels=levels_of(0.85, None))
    assert later and (later.since, later.n) == (START + 5 * DAY, 60)


def test_the_levels_are_raw_shares_of_the_judge() -> None:
    levels = levels_of(0.85, CARD)
    assert levels and levels.healthy == pytest.approx(passing(0.85))
    assert levels.lowered[0] == pytest.approx(passing(0.80))
    bare = levels_of(0.85, None)
    assert bare and (bare.healthy, bare.lowered[0]) == pytest.approx((0.85, 0.80))


def test_a_card_of_few_labels_makes_it_slower_not_more_alarming() -> None:
    few = levels_of(0.85, SimpleNamespace(sensitivity=rate(168, 180), specificity=rate(18, 20)))
    many = levels_of(0.85, SimpleNamespace(sensitivity=rate(16800, 18000), specificity=rate(1800, 2000)))
    assert few and many and few.healthy < many.healthy - 0.01


@pytest.mark.parametrize(
    ("threshold", "card"),
    [
        (0.0, None),
        (0.85, SimpleNamespace(sensitivity=rate(50, 100), specificity=rate(50, 100))),
        (0.85, SimpleNamespace(sensitivity=rate(20, 100), specificity=rate(60, 100))),
    ],
)
def test_where_no_share_tells_good_from_bad_the_chart_stays_as_it_was(threshold: float, card: Any) -> None:
    assert levels_of(threshold, card) is None
    assert carried(None, stream(0.1, 100, seed=0), since=START, levels=None) is None
    bad = charted(stream(0.2, 120, seed=1))
    assert carried(bad, stream(0.9, 100, seed=0), since=START, levels=None) == bad


def test_thresholds_of_all_sizes_have_levels_in_order() -> None:
    for threshold in (0.05, 0.2, 0.5, 0.99, 1.0):
        levels = levels_of(threshold, None)
        assert levels and 0 < min(levels.lowered) <= max(levels.lowered) < levels.healthy < 1


def test_what_is_unjudged_or_of_no_time_is_left_out() -> None:
    verdict = Verdict(outcome="pass", score=0.9, explanation="", judge_id="words")
    unjudged = Verdict(outcome="unjudged", score=None, explanation="", judge_id="words", cause="?")
    record = Record(question="q", answer="a", asked_at=START)
    timeless = Record(question="q", answer="a")
    judged = Judged(records=[record, record, timeless], verdicts=[verdict, unjudged, verdict])
    assert list(outcomes_of(judged)) == [(START, True)]


def test_it_comes_back_from_its_json() -> None:
    for chart in (charted(stream(0.3, 90, seed=1)), charted([])):
        text = chart.model_dump_json()
        assert "NaN" not in text and json.loads(text)
        assert Chart.model_validate_json(text).model_dump_json() == text
    assert "nothing was judged" in charted([]).in_words
    assert "90) of the records since 2026-03-01 00:00 UTC pass" in charted(stream(0.3, 90, seed=1)).in_words
    assert isinstance(charted([]).score, Rate)
