"""The page on something that was measured: a sentence, the picture, tests, tables, what is not known, the records.

The same order on every such page, so that who has read one finds his way in all: ``measurement.html.jinja`` has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from ontopic.reports.parts import Answered, Cell, Headline, Table, TestRow
from ontopic.reports.plots import Bars, Chart, Forest

MOST, MOST_TEXT = 50, 40_000
"""Records of one kind that are shown, and characters in them: a page is to be mailed."""


class Folded(BaseModel):
    """Records of one kind, folded.

    Attributes:
        summary: what they are, with how many.
        note: what is left out; empty where none is.
    """

    model_config = ConfigDict(frozen=True)
    summary: str
    records: list[Answered]
    note: str = ""

    @classmethod
    def first(cls, records: Sequence[Answered], what: str, *, lies: str) -> Self:
        """The first of some records, as many as a page takes; the summary and the note say how many there are.

        Args:
            lies: where the others are, as the end of a sentence.
        """
        shown, text = 0, 0
        for record in records[:MOST]:
            text += _length(record)
            if shown and text > MOST_TEXT:
                break
            shown += 1
        left = len(records) - shown
        note = f"{left:,} more are not shown here; {lies}" if left else ""
        return cls(summary=f"{len(records):,} {what}", records=list(records[:shown]), note=note)


class Measurement(BaseModel):
    """What stands on such a page, in its order.

    Attributes:
        kind: what page it is, and of what: at the very top.
        sentences: more that the headline has to say.
        plots: the picture, and ``counts`` how many records became what.
        unknown: what is not known, a sentence each.
        shown: the records, by kind.
        facts: the small print, by name.
    """

    model_config = ConfigDict(frozen=True)
    kind: str
    headline: Headline
    sentences: list[str] = []
    plots: list[Forest | Chart] = []
    counts: Bars | None = None
    tests: list[TestRow] = []
    unknown: list[str] = []
    tables: list[Table] = []
    shown: list[Folded] = []
    facts: list[tuple[str, Cell]] = []


def write_measurement(title: str, of: Measurement, *, out: Path) -> None:
    """Write the page, whole or not at all; its folder is made.

    Raises:
        OSError: it can't be written.
    """
    from ontopic.reports.design import write_page  # Jinja: who only reads what was measured need not wait for it

    write_page(title, "measurement.html.jinja", out=out, of=of)


def _length(record: Answered) -> int:
    texts = [record.question, *(turn.text for turn in record.turns)]
    texts += [text for answer in record.answers for text in (answer.text, answer.why)]
    return sum(map(len, texts))
