"""Shares and means with their intervals."""

from __future__ import annotations

import json
import math

import pytest

from ontopic.statistics.rates import rate


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(8, 10, 0.49016, 0.94332), (50, 100, 0.40383, 0.59617), (0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0)],
)
def test_a_rate_has_the_wilson_interval(successes: int, n: int, low: float, high: float) -> None:
    share = rate(successes, n)
    assert share.value == successes / n
    assert share.n == n
    assert (share.low, share.high) == pytest.approx((low, high), abs=1e-5)


def test_the_rate_of_nothing_is_unknown() -> None:
    share = rate(0, 0)
    assert math.isnan(share.value)
    assert (share.low, share.high, share.n) == (0.0, 1.0, 0)
    assert str(share) == "no records"
    assert json.loads(share.model_dump_json())["value"] is None


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3)])
def test_a_share_above_one_or_under_zero_is_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        rate(successes, n)
