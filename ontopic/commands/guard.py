"""What commands do with the guard: its card made, drawn and printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ontopic.judges.guard.card import GuardCard, StageCard

_SHOWN = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)  # thresholds of the printed curve, with the chosen one


def guard_screen(card: GuardCard, page: Path) -> Group:
    """The guard's curve by stage, what was chosen, and its errors."""
    thresholds = f"{card.question.chosen:g} for questions, {card.answer.chosen:g} for answers"
    return Group(
        Text(f"\nThe guard, by judge {card.judge_id}; it stops what scores less than {thresholds}"),
        _curve("Questions, before generation", card.question),
        _curve("Answers, after generation", card.answer),
        Text(f"Chosen (*) for an over-refusal of {card.budget:.2%} by both stages (serving.guard_budget)."),
        Text("By cross-fitting, each half of the calibration split by the other's thresholds:"),
        *(
            Text(f"  {name:<10}{errors}")
            for name, errors in (
                ("questions", card.question.held_out),
                ("answers", card.answer.held_out),
                ("both", card.both),
            )
        ),
        Text(f"  The curves: {page}"),
    )


def _curve(title: str, stage: StageCard) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), title=title)
    for column in ("threshold", "over-refusal", "leak"):
        table.add_column(column, justify="right", no_wrap=True)
    for point in stage.curve:
        if point.threshold in (*_SHOWN, stage.chosen):
            mark = "*" if point.threshold == stage.chosen else " "
            table.add_row(f"{mark} {point.threshold:.2f}", str(point.over_refusal), str(point.leak))
    return table
