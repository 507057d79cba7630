"""Topic drift is a test of two samples: few false flags at any size, and a shift is found."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from values import replace
from word_judge import CARD, LIMITS, WordJudge

from ontopic.monitoring.chart import carried, levels_of
from ontopic.monitoring.drift import REFERENCE, Past, compared, past_of, topic_drift
from ontopic.monitoring.window import Counts, Drift, Window, window_result
from ontopic.monitoring.windows import WindowStore
from ontopic.records import EARLIEST, Judged, Record

SHARES = np.array([0.2, 0.15, 0.12, 0.1, 0.09, 0.08, 0.07, 0.06, 0.05, 0.035, 0.02, 0.015, 0.01])
NAMES = [f"topic {i}" for i in range(len(SHARES))]
MODEL = "ontopic-banking"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


class Named:
    """Topics of questions that are topics' names, in place of the sentence encoder's."""

    id = "named"

    def of(self, questions: list[str]) -> list[str]:
        return list(questions)


TOPICS: object = Named()


def sample(chance: np.random.Generator, n: int, shares: np.ndarray = SHARES) -> Counter[str]:
    return Counter({name: int(count) for name, count in zip(NAMES, chance.multinomial(n, shares), strict=True)})


def drift_of(counts: Counter[str], by: str = "named") -> Drift:
    return Drift(score=math.nan, detected=False, grown=[], topics=by, counts=dict(counts))


@pytest.mark.parametrize("n", [120, 1000, 5000])
def test_without_drift_few_windows_are_flagged(n: int) -> None:
    """A cut of benchmarks/drift.py. A test that took the reference for known would flag 8 to 99 % of them."""
    chance = np.random.default_rng(0)
    found = [compared(sample(chance, 500), sample(chance, n), level=0.01) for _ in range(600)]
    assert sum(each.score < 0.05 for each in found) / 600 == pytest.approx(0.05, abs=0.025)
    assert sum(each.detected for each in found) <= 0.025 * 600


def test_a_shift_of_15_points_is_found_within_three_windows_of_120() -> None:
    chance, found = np.random.default_rng(1), 0
    shares = SHARES * (1 - 0.15 / (1 - SHARES[5]))
    shares[5] = SHARES[5] + 0.15
    for _ in range(60):
        reference = [drift_of(sample(chance, 120)) for _ in range(5)]
        earlier = [drift_of(sample(chance, 120)) for _ in range(3)]
        for _ in range(3):
            window = sample(chance, 120, shares)
            drift = topic_drift(list(window.elements()), TOPICS, past=Past(reference, earlier, DAY))  # type: ignore[arg-type]
            assert drift
            earlier.insert(0, drift)
            if drift.detected:
                found += 1
                assert drift.grown[0][0] == NAMES[5]
                break
    assert found >= 48  # 9 in 10 are expected


def test_a_small_difference_is_no_drift_however_many_questions_there_are() -> None:
    shares = SHARES.copy()
    shares[0], shares[1] = shares[0] + 0.05, shares[1] - 0.05
    drift = compared(
        Counter(dict(zip(NAMES, (SHARES * 50_000).astype(int).tolist(), strict=True))),
        sample(np.random.default_rng(0), 50_000, shares),
        level=0.01,
    )
    assert drift.score < 1e-6 and drift.distance == pytest.approx(0.05, abs=0.01)
    assert not drift.detected


@pytest.mark.parametrize(("reference", "n"), [(REFERENCE - 1, 1000), (REFERENCE, 99), (0, 0)])
def test_of_too_few_questions_nothing_is_said(reference: int, n: int) -> None:
    drift = compared(Counter(a=reference), Counter(b=n), level=0.01)
    assert math.isnan(drift.score) and not drift.detected
    assert (drift.reference, drift.n) == (reference, n)


def test_rare_topics_are_taken_together() -> None:
    """One question of a topic that is asked once in a thousand is no drift, and its p-value no tiny one."""
    reference = Counter({"cards": 600, "loans": 400})
    drift = compared(reference, Counter({"cards": 59, "loans": 40, "rare": 1}), level=0.01)
    assert drift.score > 0.5
    assert compared(Counter(a=600), Counter(a=200, b=1), level=0.01).score == 1.0


def test_topics_of_another_kind_are_not_compared() -> None:
    many = Counter({"cards": 300, "loans": 300})
    other = [drift_of(many, "of another calibration set")]
    drift = topic_drift(["cards"] * 200, TOPICS, past=Past(other, [], DAY))  # type: ignore[arg-type]
    assert drift and math.isnan(drift.score) and drift.reference == 0
    assert drift.counts == {"cards": 200}
    assert topic_drift([], TOPICS, past=Past([], [], DAY)) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(("elapsed", "level"), [(DAY, 0.05 / 30), (DAY / 24, 0.05 / 720), (30 * DAY, 0.01)])
def test_the_looks_of_a_month_share_its_five_percent(elapsed: timedelta, level: float) -> None:
    drift = topic_drift(["cards"], TOPICS, past=Past([], [], elapsed))  # type: ignore[arg-type]
    assert drift and drift.level == pytest.approx(level)


@pytest.fixture
def windows(tmp_path: Path) -> Iterator[WindowStore]:
    with WindowStore(tmp_path / "windows.db", MODEL) as store:
        yield store


def closed(windows: WindowStore, day: int, topic: str, *, good: bool = True, n: int = 200) -> Window:
    """A closed window of a day on which all ask of one topic."""
    records = [
        Record(
            question=topic,
            answer="good" if good else "bad",
            id=f"{day}-{i}",
            registered_model=MODEL,
            model_version="1",
            asked_at=NOON + day * DAY + timedelta(seconds=i),
        )
        for i in range(n)
    ]
    windows.put(records, n)
    (window,) = windows.holding([f"{day}-0"])
    judged = Judged(records=records, verdicts=WordJudge().judge(records))
    chart = carried(None, [], since=NOON, levels=levels_of(0.5, CARD))
    drift = drift_of(Counter({topic: n}))
    result = window_result(
        judged, CARD, limits=replace(LIMITS, threshold=0.5), counts=Counts(n=n), drift=drift, chart=chart
    )
    return windows.close_window(window, result, now=window.end)


def test_the_reference_is_of_the_first_healthy_windows_since_the_promotion(windows: WindowStore) -> None:
    for day, topic in enumerate(["before", "a", "low", "b", "c", "d", "e", "now", "after"]):
        closed(windows, day, topic, good=topic != "low")
    now = windows.closed(2)[0]
    past = past_of(now, windows, promoted=NOON + 0.5 * DAY)
    assert [list(each.counts) for each in past.reference] == [["a"], ["b"], ["c"]]  # 600 questions
    assert [list(each.counts) for each in past.earlier] == [["e"], ["d"]]
    assert past.elapsed == DAY
    first = past_of(windows.closed(9)[0], windows, promoted=EARLIEST)
    assert (first.reference, first.earlier, first.elapsed) == ([], [], timedelta(0))
