"""A share, or a mean, with its 95 % interval."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Z95 = NormalDist().inv_cdf(0.975)


def _or_null(unknown: float) -> Any:
    """A float that is ``null`` in JSON, which has neither NaN nor infinity, where it is ``unknown``."""
    return Annotated[
        float,
        BeforeValidator(lambda value: unknown if value is None else value),
        PlainSerializer(lambda value: value if math.isfinite(value) else None, when_used="json"),
    ]


if TYPE_CHECKING:
    NumberOrNaN = float
    _LowerBound = float
    _UpperBound = float
else:
    NumberOrNaN, _LowerBound, _UpperBound = _or_null(math.nan), _or_null(-math.inf), _or_null(math.inf)


class Rate(BaseModel):
    """A share or a mean with its 95 % interval.

    Attributes:
        value: the point estimate, of a share in [0, 1]; ``nan`` (in JSON ``null``) where it is not known.
        low, high: bounds of the 95 % interval; of a share 0 and 1 where ``n`` is 0.
        n: how many records it was counted on.
    """

    model_config = ConfigDict(frozen=True)
    value: NumberOrNaN
    low: _LowerBound
    high: _UpperBound
    n: int

    @property
    def with_interval(self) -> str:
        """``value [low, high]``, a dash where the value is not known."""
        return with_interval(self.value, self.low, high=self.high)

    def __str__(self) -> str:
        return f"{self.with_interval} (n={self.n})" if self.n else "no records"


def with_interval(value: float, low: float, *, high: float, signed: bool = False) -> str:
    """``value [low, high]`` with three decimals, as every page and screen writes it; a dash for ``nan``."""
    if math.isnan(value):
        return "–"
    sign = "+" if signed else ""
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def rate(successes: int, n: int, *, level: float = 0.95) -> Rate:
    """Share of ``successes`` in ``n`` with its Wilson score interval (Wilson 1927).

    Args:
        level: of the interval.

    Raises:
        ValueError: ``successes`` is not within 0 and ``n``.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n}")
    if n == 0:
        return Rate(value=math.nan, low=0.0, high=1.0, n=0)
    from scipy.stats import binomtest  # half a second, which who only reads rates need not wait

    interval = binomtest(successes, n).proportion_ci(level, method="wilson")
    return Rate(value=successes / n, low=float(interval.low), high=float(interval.high), n=n)


def mean(values: ArrayLike) -> Rate:
    """Mean of values of shape (n,) with Student's 95 % interval; infinite bounds where there are fewer than two."""
    import numpy as np
    from scipy.stats import t

    numbers = np.asarray(values, dtype=float)
    n = len(numbers)
    if n < 2:
        return Rate(value=float(numbers.mean()) if n else math.nan, low=-math.inf, high=math.inf, n=n)
    center, half = float(numbers.mean()), float(t.ppf(0.975, n - 1) * numbers.std(ddof=1) / math.sqrt(n))
    return Rate(value=center, low=center - half, high=center + half, n=n)
