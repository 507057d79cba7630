"""A rate held against a limit: whether it is met, and the sentence that says so."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ontopic.statistics.rates import Rate

Bound = Literal["value", "low", "high"]
Relation = Literal["at least", "at most", "above"]
_CALLED = {"value": "score", "low": "lower bound", "high": "upper bound"}


class Held(BaseModel):
    """What holding a rate against a limit found.

    Attributes:
        name: what was held against which limit.
        met: ``None`` where no record was judged, so that nothing is known.
        passed: as ``met``; without a judged record a bound does not pass, for nothing was shown, and a point estimate
            does.
        description: one sentence with bound, limit, value, interval and n.
        measured: the number that was held against the limit; ``None`` where none was, or it is not finite.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    met: bool | None
    passed: bool
    description: str
    bound: Bound
    relation: Relation
    limit: float
    measured: float | None = None


def hold(
    title: str,
    rate: Rate,
    *,
    bound: Bound,
    relation: Relation,
    limit: float,
    note: str = "",
    alpha: float = 0.05,
) -> Held:
    """Hold a rate's point estimate or a bound of its interval against a limit.

    Args:
        title: the rate's name for a reader.
        note: follows n in the description.
        alpha: of the rate's interval, where it is not the 95 % one.
    """
    what, number = _CALLED[bound], getattr(rate, bound)
    name = f"{title}: {what} {relation} {limit:g}"
    against: dict[str, Any] = {"name": name, "bound": bound, "relation": relation, "limit": limit}
    if rate.n == 0:
        found = f"no judged records (n = 0), so the {what} is not known to be {relation} {limit:g}"
        return Held(met=None, passed=bound == "value", description=found, **against)
    met = {"at least": number >= limit, "at most": number <= limit, "above": number > limit}[relation]
    found = f"the {what} {number:.4f} is {'' if met else 'not '}{relation} {limit:g}"
    found += f" (value {rate.value:.3f}, {interval(rate, note, alpha=alpha)})"
    measured = number if math.isfinite(number) else None
    return Held(met=met, passed=met, description=found, measured=measured, **against)


def level(alpha: float) -> str:
    """The level of an interval in words, ``95 %`` where ``alpha`` is 0.05."""
    return f"{100 * (1 - alpha):.6g} %"


def interval(rate: Rate, note: str = "", *, alpha: float = 0.05) -> str:
    """A rate's interval, which is at ``1 - alpha``, and n in words, with a note behind."""
    spread = f"{level(alpha)} interval {rate.low:.3f} to {rate.high:.3f}" if rate.low < rate.high else "no interval"
    return f"{spread}, n = {rate.n:,}{note}"
