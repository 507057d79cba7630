"""The table, on pages, of what the judges beside the one that gates say."""

from __future__ import annotations

from collections.abc import Sequence

from evidently.legacy.model.widget import BaseWidgetInfo
from evidently.legacy.renderers.html_widgets import table_data

from ontopic.monitoring.side_score import SideScore


def side_table(scores: Sequence[SideScore]) -> BaseWidgetInfo:
    """The table of what judges beside the one that gates say of the same records."""
    return table_data(
        title="Judges beside the one that gates (their error is not taken out)",
        column_names=["Name", "Judge", "Pass", "Records", "Unjudged", "On labelled records"],
        data=[
            (
                each.name,
                each.judge_id or "could not be opened",
                str(each.score) if each.score.n else "–",
                f"{each.sampled:,}",
                f"{each.unjudged:,}" + (f": {each.cause}" if each.cause else ""),
                each.card or "not measured; python run.py calibrate does it",
            )
            for each in scores
        ],
    )
