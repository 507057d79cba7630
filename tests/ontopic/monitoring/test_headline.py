"""The one number of a page in words: never a bare 1.000 beside failures, and times that tell two moments apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from ontopic.monitoring.headline import headline, number_in_words, period_in_words
from ontopic.monitoring.standing import Standing
from ontopic.statistics.rates import Rate, rate

NOON = datetime(2026, 3, 1, 21, 33, 4, tzinfo=UTC)
PERFECT = Rate(value=1.0, low=0.931, high=1.0, n=77)
HOPELESS = Rate(value=0.0, low=0.0, high=0.08, n=77)


def corrected(score: Rate, *, sensitivity: Rate | None = None, specificity: Rate | None = None) -> Standing:
    return Standing(score=score, is_corrected=True, labels=200, sensitivity=sensitivity, specificity=specificity)


@pytest.mark.parametrize("known", [True, False], ids=["card known", "of an earlier release"])
def test_a_score_of_one_beside_failures_comes_with_the_reason(known: bool) -> None:
    card = {"sensitivity": rate(93, 100), "specificity": rate(95, 100)} if known else {}
    said = number_in_words(corrected(PERFECT, **card), rate(72, 77))
    assert "1.000 although 5 of 77 answers fail" in said and "may be as low as 0.931" in said
    assert ("(7.0%)" in said) == known
    assert "although" not in number_in_words(corrected(PERFECT, **card), rate(77, 77))


def test_a_score_of_none_beside_passes_comes_with_the_reason_too() -> None:
    said = number_in_words(corrected(HOPELESS), rate(4, 77))
    assert "0.000 although 4 of 77 answers pass" in said and "may be as high as 0.080" in said


def test_the_raw_share_is_named_beside_the_corrected_one_with_the_judges_errors() -> None:
    of = corrected(rate(60, 77), sensitivity=rate(90, 100), specificity=rate(80, 100))
    said = number_in_words(of, rate(50, 77))
    assert str(rate(60, 77)) in said and f"the judge itself passes {rate(50, 77)}" in said
    assert "By 200 labels of this traffic it passes 90.0% of the good answers and fails 80.0% of the bad ones" in said
    raw = Standing(score=rate(50, 77), is_corrected=False, labels=7)
    assert "uncorrected" in number_in_words(raw, rate(50, 77))
    assert "label --by random -n 193" in number_in_words(raw, rate(50, 77))


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("ok", "Version 2 keeps to the subject in 91\u00a0% of its answers; at least 85.5\u00a0% are asked for."),
        ("suspected", "Version 2 may have drifted"),
        ("detected", "Version 2 has drifted"),
        ("unknown", "It is not known where version 2 stands: too few."),
    ],
)
def test_each_status_has_a_sentence_of_its_own(status: str, said: str) -> None:
    of = Standing(score=rate(91, 100), is_corrected=False, unknown_because="too few" if status == "unknown" else "")
    assert headline(status, of, version="2", threshold=0.855).startswith(said)  # type: ignore[arg-type]


def test_a_share_is_not_rounded_to_all() -> None:
    of = Standing(score=rate(9_999, 10_000), is_corrected=False)
    assert "in 99.990\u00a0% of its answers" in headline("ok", of, version="2", threshold=1.0)


def test_without_a_judged_record_nothing_is_claimed() -> None:
    of = Standing(score=rate(0, 0), is_corrected=False)
    assert headline("unknown", of, version="", threshold=0.9).startswith("It is not known where version unknown stands")
    assert number_in_words(of, rate(0, 0)) == "No record could be judged."


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        ([0, 22], "asked 2026-03-01 21:33:04 to 21:33:26 UTC"),
        ([0], "asked at 2026-03-01 21:33:04 UTC"),
        ([0, 7200], "asked 2026-03-01 21:33 to 23:33 UTC"),
        ([0, 86_400], "asked 2026-03-01 21:33 to 2026-03-02 21:33 UTC"),
        ([3000, 0, 1800], "asked 2026-03-01 21:33:04 to 22:23:04 UTC"),
        ([], ""),
    ],
)
def test_the_time_tells_beginning_and_end_apart(spans: list[int], said: str) -> None:
    assert period_in_words([None, *(NOON + timedelta(seconds=each) for each in spans)]) == said


def test_times_of_other_zones_and_of_none_are_told_in_utc() -> None:
    tokyo = NOON.astimezone(timezone(timedelta(hours=9)))
    naive = (NOON + timedelta(seconds=5)).replace(tzinfo=None)
    assert period_in_words([tokyo, naive]) == "asked 2026-03-01 21:33:04 to 21:33:09 UTC"
