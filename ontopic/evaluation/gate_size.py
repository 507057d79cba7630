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
    asked = in_scope + out_of_scope
    counts = (
        ("guardrail_score", "questions", asked, 1 - limits.guardrail_score),
        ("over_refusal", "questions in scope", in_scope, limits.over_refusal),
        ("leak", "questions out of scope", out_of_scope, limits.leak),
        ("unjudged", "questions", asked, limits.unjudged),
        ("unjudged_increase", "questions", asked, limits.unjudged_increase),
    )
    said = []
    for name, what, have, mistakes in counts:
        limit = f"the limit of {getattr(limits, name):g}"
        if mistakes <= 0:
            said.append(f"{name}: no number of {what} is enough for {limit}")
        elif have < (need := _fewest(mistakes)):
            said.append(
                f"{name}: the gate asks {have} {what}, and a challenger without a mistake needs {need} for {limit}"
            )
    return said


def _fewest(mistakes: float) -> int:
    """The fewest records without a mistake whose Wilson interval of the share of mistakes ends at most there."""
    # Without a mistake it ends at z^2 / (n + z^2), and Tango's of a difference does without a discordant pair; the
    # tolerance is for what subtraction from 1 leaves.
    return math.ceil(Z95**2 * (1 - mistakes) / mistakes - 1e-9)
