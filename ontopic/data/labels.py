"""People's labels of records: where they are kept."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal

from filelock import FileLock
from pydantic import Field, ValidationError

from ontopic.config.policy import Policy
from ontopic.data.labelled import MOST_CHARACTERS, LabelledRecord, Split, conversation_and_answer
from ontopic.errors import UserError
from ontopic.records import Record
from ontopic.state.erased_files import erase_from_lines, gone_lines
from ontopic.state.erasing import Erasing
from ontopic.state.whole_file import whole_file
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
    """Human labels in a JSONL file, one a line; only ever appended to, and on disk when a call returns.

    Of several lines on the same conversation and answer the last one counts; what is labelled of the gate's answers
    counts apart, as it is no sample of the traffic. Each line is a ``LabelledRecord`` with, besides, how the record was
    drawn, who labelled it and when.

    Args:
        path: made on the first label; may be used by several processes at once.
        plain: takes personal data out of what the labeller writes.
    """

    def __init__(self, path: Path, *, plain: Callable[[str], str] = str) -> None:
        self.path, self.plain = path, plain

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
        for row in _rows(self.path):
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
        with FileLock(f"{self.path}.lock"):
            text = self.path.read_text(encoding="utf-8")
            gone = gone_lines(text, erasing)
            dropped = [row for number, row in enumerate(text.split("\n")) if number in gone]
            if (left := erase_from_lines(text, erasing)) != text:
                with whole_file(self.path) as part:
                    part.write_text(left, encoding="utf-8")
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
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock"), self.path.open("a+b") as file:
            _end_last_line(file)
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def _is_of_gate(row: LabelledRecord) -> bool:
    return row.split == SPLIT["discordant"]


def labels_file(policy: Policy, workspace: Workspace) -> Path:
    """Where the human labels for a policy are kept."""
    return workspace.labels / f"{policy.name}.jsonl"


def load_labels(path: Path, split: str) -> list[LabelledRecord]:
    """The human labels of one split; none where the file is missing.

    A last line that a crash left half-written is dropped, with a notice on standard error.

    Raises:
        UserError: any other line is malformed.
    """
    # As plain ones: what is learned from a label does not hang on when its record was asked.
    plain = LabelledRecord.model_fields
    rows = [row for row in LabelStore(path).labels() if row.split == split]
    return [LabelledRecord(**{name: getattr(row, name) for name in plain}) for row in rows]


def _rows(path: Path) -> list[TrafficLabel]:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path}: the labels cannot be read ({error}); check the file and its rights") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(TrafficLabel.model_validate(json.loads(line)))
        except (ValueError, ValidationError, RecursionError):
            if number == len(lines):  # no newline behind it: a crash cut it off
                print(f"{path}: the last line is half-written and was dropped", file=sys.stderr)
                break
            raise UserError(
                f"{path}:{number}: is not a label as this program writes it; mend or remove that line"
            ) from None
    return rows


def _end_last_line(file: BinaryIO) -> None:
    """Drop what a crash left of a last line; end one that only lacks its newline."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return
    file.seek(0)
    content = file.read()
    tail = content[content.rfind(b"\n") + 1 :]
    if not tail:
        return
    try:
        TrafficLabel.model_validate(json.loads(tail))
        file.write(b"\n")
    except (ValueError, ValidationError, RecursionError):
        file.truncate(size - len(tail))


def _labeller() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return ""
