"""What the promotion record says of a gate, in Markdown: for model cards and for descriptions in MLflow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from ontopic.registry.markdown import plain, table
from ontopic.registry.promotion_record import Entry
from ontopic.statistics.rates import Rate, with_interval

SHARES = {"guardrail_score": "guardrail score", "over_refusal": "over-refusal", "leak": "leak"}
"""The shares that a gate holds against its limits, and what they are called."""


def gate_in_markdown(gate: Entry, decision: Mapping[str, Any]) -> Iterator[str]:
    """The paragraphs: what was asked, both models' numbers, the difference, the tests.

    Args:
        gate: the entry.
        decision: among its facts.
    """
    questions, against = gate.facts.get("questions"), plain(gate.facts.get("against"))
    n = questions.get("n") if isinstance(questions, dict) else None
    yield (
        f"From its gate against version {against} on {gate.at:%Y-%m-%d}, which it **{plain(gate.facts.get('gate'))}**: "
        f"{plain(n)} held-out questions of the policy that neither was trained on, asked of both. "
        "Shares have their 95 % interval and the number of answers."
    )
    sides = [as_dict(decision.get(side)) for side in ("challenger", "champion")]
    rows = [[name, *(rate_in_words(side.get(key)) for side in sides)] for key, name in SHARES.items()]
    rows += [["unjudged answers", *(plain(side.get("unjudged")) for side in sides)]]
    yield table(["", "this version", f"version {against}"], rows)
    yield from _difference(decision)
    tests = [
        f"- {'passed' if test.get('passed') else '**failed**'}: {plain(test.get('description'))}"
        for test in map(as_dict, as_list(decision.get("tests")))
    ]
    if tests:
        yield "The gate's tests:"
        yield "\n".join(tests)


def _difference(decision: Mapping[str, Any]) -> Iterator[str]:
    found = as_dict(decision.get("comparison"))
    if found:
        low, value, high = (_number(found.get(name)) for name in ("low", "difference", "high"))
        yield (
            f"Pass rate, this version minus the other: {plain(with_interval(value, low, high=high, signed=True))} "
            f"(n={plain(found.get('n'))}; only this one passed {plain(found.get('wins'))}, only the other "
            f"{plain(found.get('losses'))})."
        )
    alone = as_dict(as_dict(decision.get("alone")).get("challenger"))
    if alone:
        shares = ", ".join(f"{name} {rate_in_words(alone.get(key))}" for key, name in SHARES.items())
        yield f"These numbers are behind OnTopic's guard, which these weights do not hold. The model alone: {shares}."


def rate_in_words(value: Any) -> str:
    """A share with its interval, where it is one."""
    try:
        return plain(str(Rate.model_validate(value)))  # brackets before a parenthesis would be a link
    except ValidationError:
        return plain(value)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def as_dict(value: Any) -> dict[str, Any]:
    """A mapping among an entry's facts; an empty one where it is none."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """A list among an entry's facts; an empty one where it is none."""
    return value if isinstance(value, list) else []
