"""People's labels of records: where they are kept."""

from __future__ import annotations

import getpass
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from ontopic.config.policy import Policy
from ontopic.data.labelled import MOST_CHARACTERS, LabelledRecord, Split, conversation_and_answer
from ontopic.errors import UserError
from ontopic.records import Record
from ontopic.state.erased_files import erase_from_lines, gone_lines
from ontopic.state.erasing import Erasing
from ontopic.state.lines import Lines, as_lines
from ontopic.state.workspace import Workspace

Draw = Literal["random", "uncertainty", "feedback", "discordant"]
SPLIT: dict[Draw, Split] = {
    "random": "calibration",
    "uncertainty": "train",
    "feedback": "train",
    "discordant": "evaluation",
}


class TrafficLabel(LabelledRecord):
    """A person's label of one record.

    Attributes:
        drawn: how the record was drawn; empty in a line of a first release.
        record_id: of the record in the traffic; empty where it came from a file.
        model_version: that answered; empty where it is not known.
        asked_at: in UTC; ``None`` where it is not known.
        correction: the answer that the labeller would have given; empty where they wrote none.
    """

    drawn: str = ""
    record_id: str = ""
    model_version: str = ""
    asked_at: datetime | None = None
    correction: str = Field("", max_length=MOST_CHARACTERS)

    @property
    def is_of_traffic(self) -> bool:
        """Whether it is of a random sample of the traffic, so that it says how a judge errs there."""
        return self.drawn == "random" and bool(self.record_id)


class LabelStore:
    """Human labels, one a line; only ever appended to, and they last when a call returns.

    Of several lines on the same conversation and answer the last one counts; what is labelled of the gate's answers
    counts apart, as it is no sample of the traffic. Each line is a ``LabelledRecord`` with, besides, how the record was
    drawn, who labelled it and when.

    Args:
        place: ``labels_of`` a policy, or a file; may be used by several processes at once.
        plain: takes personal data out of what the labeller writes.
    """

    def __init__(self, place: Path | Lines, *, plain: Callable[[str], str] = str) -> None:
        self.kept, self.plain = as_lines(place), plain

    def add(
        self, record: Record, label: Literal["pass", "fail"], *, by: Draw, why: str = "", correction: str = ""
    ) -> None:
        """Keep a label. The record's scope is kept with it; the split follows from how the record was drawn.

        Args:
            correction: the right answer, where the labeller wrote one.
        """
        written = {"why": self.plain(why)} | ({"correction": self.plain(correction)} if correction.strip() else {})
        self._append(record, {"label": label, **written, "split": SPLIT[by], "drawn": by})

    def remove(self, record: Record, *, by: Draw) -> None:
        """Take a label back: the record counts as not labelled again."""
        self._append(record, {"label": None, "split": SPLIT[by], "drawn": by})

    def labels(self) -> list[TrafficLabel]:
        """The labels that count, in the order they were given. Raises what ``load_labels`` raises."""
        last: dict[tuple[tuple[str, str], bool], TrafficLabel] = {}
        for row in _rows(self.kept):
            key = (row.conversation_and_answer, _is_of_gate(row))
            last.pop(key, None)
            if row.label is not None:
                last[key] = row
        return list(last.values())

    def unlabelled(self, records: Sequence[Record], *, by: Draw = "random") -> list[Record]:
        """Those of ``records`` that have no label yet, of those that count together with ``by``."""
        of_gate = SPLIT[by] == SPLIT["discordant"]
        labels = [row for row in self.labels() if _is_of_gate(row) == of_gate]
        known = {row.conversation_and_answer for row in labels}
        ids = {row.record_id for row in labels if row.record_id}  # an earlier release kept the last message alone
        return [r for r in records if conversation_and_answer(r) not in known and r.id not in ids]

    def erase(self, erasing: Erasing) -> dict[str, int]:
        """Drop the lines on records that are erased; returns how many by split."""
        dropped: list[str] = []

        def left(content: bytes) -> bytes:
            text = content.decode()
            gone = gone_lines(text, erasing)
            dropped.extend(row for number, row in enumerate(text.split("\n")) if number in gone)
            return erase_from_lines(text, erasing).encode()

        self.kept.rewrite(left)
        return Counter(str(json.loads(row).get("split")) for row in dropped)

    def _append(self, record: Record, what: dict[str, str | None]) -> None:
        row = {
            "question": record.question,
            "answer": record.answer,
            **({"messages": record.request} if record.messages else {}),
            "in_scope": record.in_scope,
            "kind": "human_label",
            **what,
            "record_id": record.id,
            "model_version": record.model_version,
            "asked_at": record.asked_at and record.asked_at.isoformat(),
            "labeller": _labeller(),
            "labelled_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self.kept.append(lambda *_: json.dumps(row).encode())


def _is_of_gate(row: LabelledRecord) -> bool:
    return row.split == SPLIT["discordant"]


def labels_of(policy: Policy, workspace: Workspace) -> Lines:
    """The human labels for a policy."""
    return workspace.lines(workspace.labels / f"{policy.name}.jsonl")


def labels_sha256(policy: Policy, workspace: Workspace) -> str:
    """sha256 (hex) of all human labels for a policy, those that were taken back among them."""
    return hashlib.sha256(labels_of(policy, workspace).read()).hexdigest()


def load_labels(place: Path | Lines, split: str) -> list[LabelledRecord]:
    """The human labels of one split; none where there are no labels.

    A last line that a crash left half-written is dropped, with a notice on standard error.

    Raises:
        UserError: any other line is malformed.
    """
    # As plain ones: what is learned from a label does not hang on when its record was asked.
    plain = LabelledRecord.model_fields
    rows = [row for row in LabelStore(place).labels() if row.split == split]
    return [LabelledRecord(**{name: getattr(row, name) for name in plain}) for row in rows]


def _rows(kept: Lines) -> list[TrafficLabel]:
    try:
        lines = kept.read().split(b"\n")
    except OSError as error:
        raise UserError(f"{kept}: the labels cannot be read ({error}); check the file and its rights") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(TrafficLabel.model_validate(json.loads(line)))
        except (ValueError, ValidationError, RecursionError):
            if number == len(lines):  # no newline behind it: a crash cut it off
                print(f"{kept}: the last line is half-written and was dropped", file=sys.stderr)
                break
            raise UserError(
                f"{kept}:{number}: is not a label as this program writes it; mend or remove that line"
            ) from None
    return rows


def _labeller() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return ""
