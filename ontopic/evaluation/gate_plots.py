"""What the gate's page draws: before and after on one axis with the limits, and where it declines or leaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ontopic.evaluation.gate import IMPROVEMENT, Decision, GateTest
from ontopic.evaluation.segments import By, Segment
from ontopic.reports.parts import Cell, Column, Status, Table
from ontopic.reports.plots import Forest, ForestRow, Mark
from ontopic.statistics.rates import Rate

_SHARES = {"guardrail_score": "Guardrail score", "over_refusal": "Over-refusal", "leak": "Leak"}
_ROWS: tuple[tuple[By, int], ...] = (("kind", 4), ("language", 2), ("intent", 4))
_MOST_SEGMENTS = 60


def before_and_after(decision: Decision, names: tuple[str, str]) -> Forest:
    """Both models' shares as intervals, with the policy's limits, and the improvement.

    Args:
        names: the champion's and the challenger's.
    """
    rows = [
        _row(decision, title, marks=_sides(decision, name, names=names))
        for name, title in (*_SHARES.items(), ("unjudged_share", "Unjudged"))
    ]
    difference = Mark(name=f"{names[1]} minus {names[0]}", rate=decision.improvement, role="neutral")
    rows.insert(1, _row(decision, IMPROVEMENT, label="Improvement", marks=[difference]))
    low = min(0.0, decision.improvement.low) if decision.comparison.n else 0.0
    return Forest(title="Shares of answers, with their intervals and the policy's limits", rows=rows, low=low)


def by_segment(share: Literal["over_refusal", "leak"], found: Sequence[Segment], *, names: tuple[str, str]) -> Forest:
    """One share by kind, language and intent: of each the largest, and of the intents those where it is highest."""
    rows = []
    for by, most in _ROWS:
        known = [each for each in found if each.by == by and getattr(each.challenger, share).n]
        if by == "intent":
            known.sort(key=lambda each: -getattr(each.challenger, share).value)
        for each in known[:most]:
            sides = [getattr(side, share) for side in (each.champion, each.challenger)]
            rows.append(
                ForestRow(
                    label=f"{by}: {each.name.replace('_', ' ')} ({sides[1].n:,})",
                    marks=_marks(names, sides[0], challenger=sides[1]),
                )
            )
    return Forest(title=f"{_SHARES[share]} by segment", rows=rows, dense=True)


def segments_table(found: Sequence[Segment], names: tuple[str, str]) -> Table:
    """All segments, both models in each."""
    columns = [Column(name="By"), Column(name="Segment"), Column(name="n", numeric=True)]
    columns += [Column(name=f"{title}, {name}") for title in _SHARES.values() for name in names]
    columns.append(Column(name="Unjudged"))
    rows: list[list[Cell]] = []
    for each in found:
        sides = (each.champion, each.challenger)
        shares = [_plain(getattr(side, share)) for share in _SHARES for side in sides]
        rows.append([each.by, each.name, each.n, *shares, f"{sides[0].unjudged:,} / {sides[1].unjudged:,}"])
    lies = "the promotion record has all of them (`python run.py record show --json`)."
    title = "By the kind, language and intent of the question"
    return Table.first(rows, _MOST_SEGMENTS, lies=lies, caption=title, columns=columns, filtered=True)


def status_of(test: GateTest | None) -> Status | None:
    """A test's outcome as pages have it."""
    if test is None:
        return None
    return "passed" if test.passed else "failed"


def _row(decision: Decision, title: str, *, marks: list[Mark], label: str = "") -> ForestRow:
    """With the limit of the test of this title, where there is one."""
    test = next((each for each in decision.tests if each.name.startswith(f"{title}: ")), None)
    limit = test.limit if test else None
    said = f"{test.relation} {limit:g}" if test and limit is not None else ""
    return ForestRow(label=label or title, marks=marks, limit=limit, limit_text=said, status=status_of(test))


def _sides(decision: Decision, name: str, *, names: tuple[str, str]) -> list[Mark]:
    return _marks(names, getattr(decision.champion, name), challenger=getattr(decision.challenger, name))


def _marks(names: tuple[str, str], champion: Rate, *, challenger: Rate) -> list[Mark]:
    return [
        Mark(name=names[0], rate=champion, role="champion"),
        Mark(name=names[1], rate=challenger, role="challenger"),
    ]


def _plain(rate: Rate) -> str:
    return rate.with_interval if rate.n else "–"
