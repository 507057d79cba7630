"""Whether the gate asks enough: how many questions a challenger needs that makes no mistake at all."""

from __future__ import annotations

import math

from ontopic.config.policy import GateLimits
from ontopic.statistics.rates import Z95


def too_few(limits: GateLimits, *, in_scope: int, out_of_scope: int) -> list[str]:
    """Sentences on the limits that not even a challenger without a mistake could meet on so many questions.

    Args:
        in_scope, out_of_scope: how many questions the gate asks.
    """
    counts = (
        ("guardrail_score", "questions", in_scope + out_of_scope, 1 - limits.guardrail_score),
        ("over_refusal", "questions in scope", in_scope, limits.over_refusal),
        ("leak", "questions out of scope", out_of_scope, limits.leak),
    )
    return [
        f"{name}: the gate asks {have} {what}, and a challenger without a mistake needs {_fewest(mistakes)} for the "
        f"limit of {getattr(limits, name):g}"
        for name, what, have, mistakes in counts
        if have < _fewest(mistakes)
    ]


def _fewest(mistakes: float) -> float:
    """The fewest records without a mistake whose Wilson interval of the share of mistakes ends at most there."""
    # Without a mistake it ends at z^2 / (n + z^2); the tolerance is for what subtraction from 1 leaves.
    return math.ceil(Z95**2 * (1 - mistakes) / mistakes - 1e-9) if mistakes > 0 else math.inf
