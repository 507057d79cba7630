"""Evidently's widgets as one HTML page, whose texts stay texts."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pandas as pd
from evidently.core.metric_types import metric_tests_widget, render_widgets
from evidently.core.report import Snapshot
from evidently.legacy.model.widget import BaseWidgetInfo
from evidently.legacy.renderers.html_widgets import (
    ColumnDefinition,
    RichTableDataRow,
    RowDetails,
    rich_table_data,
    text_widget,
)

from ontopic.state.whole_file import whole_file

MAX_ROWS = 200
MAX_CELL = 240
PASS_COLOUR, FAIL_COLOUR, GREY = "#2e7d32", "#c62828", "#9e9e9e"


def text_table(title: str, frame: pd.DataFrame, *, nothing: str) -> BaseWidgetInfo:
    """The first rows of a frame of texts: cells cut to fit, the whole text folded out on a click."""
    if frame.empty:
        return text_widget(title=title, text=nothing)
    title += f" ({len(frame):,})" if len(frame) <= MAX_ROWS else f" (the first {MAX_ROWS} of {len(frame):,})"
    shown = frame.head(MAX_ROWS).astype(str)
    rows = []
    for row in shown.to_dict("records"):
        cells = {name: text if len(text) <= MAX_CELL else text[:MAX_CELL] + " …" for name, text in row.items()}
        whole = "\n\n".join(f"**{name}**\n\n{plain_markdown(text)}" for name, text in row.items())
        rows.append(RichTableDataRow(cells, RowDetails().with_part("Whole text", text_widget(text=whole))))
    columns = [ColumnDefinition(name, name) for name in shown.columns]
    widget = rich_table_data(title=title, rows_per_page=10, columns=columns, data=rows)
    for column in widget.params["columns"]:
        column["cellStyle"] = {"whiteSpace": "pre-wrap", "verticalAlign": "top"}
        if shown[column["field"]].str.len().max() <= len("unjudged"):
            column["width"] = "13%"
    return widget


def plain_markdown(text: str) -> str:
    """Markdown that shows the text as it is: Evidently's text widgets would follow its links and load its images."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "\\\n".join(re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", line) for line in lines)


def widgets_of(snapshot: Snapshot) -> list[BaseWidgetInfo]:
    """What a report's metrics draw."""
    return list(snapshot.to_snapshot_model().widgets)


def test_widgets_of(snapshot: Snapshot) -> list[BaseWidgetInfo]:
    """The tests as a part of the page; Evidently would hide them behind a tab."""
    if not snapshot.tests_results:
        return []
    widget = metric_tests_widget(snapshot.tests_results)
    widget.title = "Tests"
    del widget.params["v2_test"]
    return [widget]


def write_page(title: str, widgets: list[BaseWidgetInfo], *, out: Path) -> None:
    """Write widgets as one HTML page that no text in them can break out of; whole or not at all."""
    page = render_widgets(widgets)
    # Evidently puts its JSON into a script unescaped, where a record's "</script>" would end it. Each of the two JSON
    # values is one line, and "<" occurs in it only inside of strings.
    data = re.compile(r"^ +var (?:additional_graphs_)?metric_\w+ = .*$", re.MULTILINE)
    page, found = data.subn(lambda line: line[0].replace("<", "\\u003c"), page, count=2)
    if found != 2:
        raise RuntimeError("this version of Evidently embeds its data in another way; the page would not be safe")
    head = f"<head>\n<title>{html.escape(title)}</title>\n<style>body {{ overflow-wrap: anywhere }}</style>"
    page = page.replace("<head>", head, 1)

    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as part:
        part.write_text(page, encoding="utf-8")
