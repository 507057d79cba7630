"""What ``keys list`` and ``ask`` print."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from typing import Literal

import pytest
from rich.console import Console

from ontopic.records import Verdict
from serving.commands import keys_table, said
from serving.keys import Key

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def test_the_columns_of_the_keys_stand_apart_in_80_columns() -> None:
    key = Key(
        sha256="a",
        name="frontend",
        prefix="ot-abcdef12",
        requests_per_minute=100_000,
        tokens_per_minute=1_000_000_000,
        made_at=NOW,
        expires_at=None,
        revoked_at=None,
    )
    out = StringIO()
    Console(file=out, width=80).print(keys_table([key], NOW))
    header, _, row = [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]
    assert "2026-11-26  never" in row
    assert "frontend" in row
    assert header.index("expires") == row.index("never")


@pytest.mark.parametrize(
    ("outcome", "score", "expected"),
    [
        ("pass", 0.97, "pass; on topic: yes, score 0.97 (truth is not judged). So it is."),
        ("fail", None, "fail; on topic: no (truth is not judged). So it is."),
        ("unjudged", None, "unjudged: the server is down"),
    ],
)
def test_a_verdict_says_that_truth_is_not_judged(
    outcome: Literal["pass", "fail", "unjudged"], score: float | None, expected: str
) -> None:
    cause = "the server is down" if outcome == "unjudged" else None
    explanation = "" if cause else "So it is."
    verdict = Verdict(outcome=outcome, score=score, explanation=explanation, judge_id="j", cause=cause)
    assert said(verdict) == expected
