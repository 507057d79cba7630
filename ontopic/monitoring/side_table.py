"""The table, on pages, of what the judges beside the one that gates say."""

from __future__ import annotations

from collections.abc import Sequence

from ontopic.monitoring.side_score import SideScore
from ontopic.reports.parts import Column, Table


def side_table(scores: Sequence[SideScore]) -> Table:
    """The table of what judges beside the one that gates say of the same records."""
    return Table(
        caption="Judges beside the one that gates",
        note="Their error is not taken out, and they decide nothing.",
        columns=[
            Column(name="Name"),
            Column(name="Judge"),
            Column(name="Pass", numeric=True),
            Column(name="Records", numeric=True),
            Column(name="Unjudged"),
            Column(name="On labelled records"),
        ],
        rows=[
            [
                each.name,
                each.judge_id or "could not be opened",
                each.score,
                each.sampled,
                f"{each.unjudged:,}" + (f": {each.cause}" if each.cause else ""),
                each.card or "not measured; python run.py calibrate does it",
            ]
            for each in scores
        ],
    )
