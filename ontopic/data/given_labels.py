"""Labels that were given elsewhere, such as in a spreadsheet."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

from pydantic import BaseModel, ConfigDict, Field

from ontopic.data.drawing import drawable
from ontopic.data.labelled import conversation_and_answer
from ontopic.data.labels import Draw, LabelStore, TrafficLabel
from ontopic.records import Record


class GivenLabel(TrafficLabel):
    """A row of a file of labels: a record as it was exported, with a label, and maybe the right answer.

    Attributes:
        id: of the record in the traffic, as an export names it.
    """

    id: str = Field("", coerce_numbers_to_str=True)
    model_version: str = Field("", coerce_numbers_to_str=True)

    def labelled(self) -> Record:
        """The record that is labelled."""
        at = self.asked_at
        known: dict[str, object] = {"id": self.record_id or self.id, "model_version": self.model_version}
        known |= {"asked_at": at.replace(tzinfo=UTC) if at and not at.tzinfo else at}
        return self.record(in_scope=self.in_scope).model_copy(update=known)


class Taken(BaseModel):
    """What became of the rows of a file of labels.

    Attributes:
        known: that are kept already, word by word.
        unlabelled: without a label.
        other_half: that another draw's labels are of, and that were left out.
    """

    model_config = ConfigDict(frozen=True)
    kept: int = 0
    known: int = 0
    unlabelled: int = 0
    other_half: int = 0


def take_labels(rows: Sequence[GivenLabel], store: LabelStore, *, by: Draw) -> Taken:
    """Keep the labels of those rows that this draw's labels are of, as if they had been given on the terminal.

    So what measures a judge stays apart from what teaches it and the model, whoever chose the rows.
    """
    labelled = [(row, row.labelled()) for row in rows if row.label]
    own = {conversation_and_answer(record) for record in drawable([record for _, record in labelled], by)}
    known = {row.conversation_and_answer: _said(row) for row in store.labels()}
    kept = same = 0
    for row, record in labelled:
        key = conversation_and_answer(record)
        label = row.label
        if key not in own or label is None:
            continue
        row = row.model_copy(update={"why": store.plain(row.why), "correction": store.plain(row.correction)})
        if known.get(key) == _said(row):
            same += 1
            continue
        store.add(record, label, by=by, why=row.why, correction=row.correction)
        known[key], kept = _said(row), kept + 1
    others = sum(conversation_and_answer(record) not in own for _, record in labelled)
    return Taken(kept=kept, known=same, unlabelled=len(rows) - len(labelled), other_half=others)


def _said(row: TrafficLabel) -> tuple[object, ...]:
    return row.label, row.in_scope, row.why, row.correction
