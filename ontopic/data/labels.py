"""Human labels: which records to ask for, where labels are kept, and a terminal labeller.

Labels teach a judge or measure it, and must not do both. Records chosen because the judge is unsure of them are no
random sample: measured on them alone any judge looks worse than it is, and measured on those they leave behind, better.
So a hash of its words puts each question into one of two halves of the traffic, for good. Uncertainty sampling draws
from one half, for the training split; random sampling draws from the other, for the calibration split and so for the
card. Who gives a thumb to an answer is no random sample either, and a customer can dislike a right refusal: so records
with feedback are shown to a labeller, from the first half too.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import math
import os
import sys
import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from pydantic import ValidationError

from ontopic.data.labelled import LabelledRecord, Split, near_duplicates
from ontopic.errors import UserError
from ontopic.records import Record, Verdict
from ontopic.training.preferences import normalized

Draw = Literal["random", "uncertainty", "feedback"]
SPLIT: dict[Draw, Split] = {"random": "calibration", "uncertainty": "train", "feedback": "train"}
_POOL = 500  # near duplicates are looked for among this many records at a time


def drawable(records: Sequence[Record], by: Draw) -> list[Record]:
    """The records that may be drawn in this way: one half of the questions for each way, whatever the judge says.

    A record that ``LabelledRecord`` does not take (blank, or too long) is left out; one with the same question and
    answer as another counts once.
    """
    half = 0 if by == "random" else 1
    unique = {(r.question, r.answer): r for r in records}.values()
    return [r for r in unique if _hash(normalized(r.question)) % 2 == half and _fits(r)]


def random_sample(records: Sequence[Record], n: int) -> list[int]:
    """Indices of ``n`` records in an order that depends on nothing but their text, so that a sample can be resumed."""
    return sorted(range(len(records)), key=lambda i: _hash(records[i].question, records[i].answer))[:n]


def most_informative(records: Sequence[Record], judged: Sequence[Sequence[Verdict]], *, n: int) -> list[int]:
    """The records whose labels would teach a judge most.

    Uncertainty sampling (Lewis and Gale 1994): the nearer the probability of a pass is to a half, the better. Where
    several judges give theirs, it is the entropy of their mean (the committee of Dagan and Engelson 1995), which is
    high where they are unsure and where they disagree. A question that is nearly the same as one already taken is
    passed over.
    Labels drawn so are for the training split only: see the module's docstring.

    Args:
        records: what to choose from.
        judged: for each judge its verdicts on ``records``, in order.
        n: how many to choose.

    Returns:
        Indices, the most informative first; fewer than ``n`` where there are no more. Records that no judge could
        judge are left out.

    Raises:
        ValueError: a judge's verdicts and the records are not equally many.
    """
    if any(len(verdicts) != len(records) for verdicts in judged):
        raise ValueError(f"{len(records)} records, {[len(verdicts) for verdicts in judged]} verdicts")
    entropies = [_entropy([v[i].score for v in judged]) for i in range(len(records))]
    order = sorted((i for i in range(len(records)) if entropies[i] is not None), key=lambda i: -(entropies[i] or 0.0))
    chosen: list[int] = []
    for start in range(0, len(order), _POOL):
        pool = order[start : start + _POOL]
        others = [*chosen, *pool]
        alike: dict[int, set[int]] = {i: set() for i in pool}
        ours, theirs = ([normalized(records[i].question) or "-" for i in part] for part in (pool, others))
        for left, right in near_duplicates(ours, theirs):
            alike[pool[left]].add(others[right])
        for i in pool:
            if len(chosen) == n:
                return chosen
            if alike[i].isdisjoint(chosen):
                chosen.append(i)
    return chosen


class LabelStore:
    """Human labels in a JSONL file, one a line; only ever appended to, and on disk when a call returns.

    Of several lines on the same question and answer the last one counts. Each line is a ``LabelledRecord`` with,
    besides, how the record was drawn, who labelled it and when.

    Args:
        path: made on the first label; may be used by several processes at once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, record: Record, label: Literal["pass", "fail"], *, by: Draw, why: str = "") -> None:
        """Keep a label. The record's scope is kept with it; the split follows from how the record was drawn."""
        self._append(record, {"label": label, "why": why, "split": SPLIT[by], "drawn": by})

    def remove(self, record: Record) -> None:
        """Take a label back: the record counts as not labelled again."""
        self._append(record, {"label": None})

    def labels(self) -> list[LabelledRecord]:
        """The labels that count, in the order they were given. Raises what ``load_labels`` raises."""
        last: dict[tuple[str, str], LabelledRecord] = {}
        for row in _rows(self.path):
            key = (row.question, row.answer)
            last.pop(key, None)
            if row.label is not None:
                last[key] = row
        return list(last.values())

    def unlabelled(self, records: Sequence[Record]) -> list[Record]:
        """Those of ``records`` that have no label yet."""
        known = {(row.question, row.answer) for row in self.labels()}
        return [record for record in records if (record.question, record.answer) not in known]

    def _append(self, record: Record, what: dict[str, Any]) -> None:
        row = {
            "question": record.question,
            "answer": record.answer,
            "in_scope": record.in_scope,
            "kind": "human_label",
            **what,
            "record_id": record.id,
            "labeller": _labeller(),
            "labelled_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock"), self.path.open("a+b") as file:
            _end_last_line(file)
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def load_labels(path: Path, split: str) -> list[LabelledRecord]:
    """The human labels of one split; none where the file is missing.

    A last line that a crash left half-written is dropped, with a notice on standard error.

    Raises:
        UserError: any other line is malformed.
    """
    return [row for row in LabelStore(path).labels() if row.split == split]


def label_records(
    records: Sequence[Record],
    store: LabelStore,
    *,
    by: Draw,
    definition: str,
    ask: Callable[[str], str] = input,
    say: Callable[[str], object] = print,
    notes: Sequence[str] | None = None,
) -> int:
    """Ask a human for the label of one record after the other, and keep each in ``store`` at once.

    The judge's verdict isn't shown: it would sway the label.

    Args:
        definition: the policy's, shown on ``?``.
        ask: shows a prompt and returns a line; raises ``EOFError`` at the end, which is taken as ``q``.
        say: shows a text.
        notes: what else to show of each record, one a record.

    Returns:
        How many records were labelled.
    """
    say(_KEYS)
    labelled: list[int] = []
    position = 0
    try:
        while position < len(records):
            record = records[position]
            say(f"\n{position + 1} of {len(records)}")
            say(f"Question\n{terminal_safe(record.question)}\nAnswer\n{terminal_safe(record.answer)}")
            if notes:
                say(terminal_safe(notes[position]))
            key, _, why = _choice(ask, say, prompt="pass or fail? ", keys="pfsuq", definition=definition).partition(" ")
            if key == "q":
                break
            if key == "u":
                if labelled:
                    position = labelled.pop()
                    store.remove(records[position])
                    say(f"Taken back: record {position + 1}.")
                else:
                    say("There is nothing to undo.")
                continue
            if key != "s":
                scope = record.in_scope
                try:
                    if scope is None:
                        scope = {"y": True, "n": False}.get(
                            _choice(ask, say, prompt="in scope? (y/n) ", keys="yn", definition=definition)[:1]
                        )
                finally:
                    # An end of input here still keeps the label that was given.
                    known = Record(question=record.question, answer=record.answer, in_scope=scope, id=record.id)
                    store.add(known, "pass" if key == "p" else "fail", by=by, why=why.strip())
                    labelled.append(position)
            position += 1
    except EOFError:
        say("")
    return len(labelled)


_KEYS = (
    "p: pass, f: fail (a reason may follow: f gives the recipe), s: skip, u: undo, q: quit, ?: what the policy covers. "
    "Enter ends a line."
)


def terminal_safe(text: str) -> str:
    """A text that is safe to show on a terminal, each line behind a bar.

    Characters that could move the cursor, change colours, hide or reorder text are shown as escapes; the bar tells
    a record's lines from ours.
    """
    lines = text.split("\n") if text.strip() else ["(empty)"]
    return "\n".join("  | " + "".join(map(_visible, line)) for line in lines)


def _visible(character: str) -> str:
    # C: control, format, surrogate, private, unassigned; Zl and Zp: separators of lines and paragraphs
    hidden = unicodedata.category(character)[0] == "C" or unicodedata.category(character) in ("Zl", "Zp")
    return ascii(character)[1:-1] if hidden and character != "\t" else character


def _choice(ask: Callable[[str], str], say: Callable[[str], object], *, prompt: str, keys: str, definition: str) -> str:
    """A line that starts with one of ``keys``, alone or before a space; asked for again until there is one."""
    while True:
        line = ask(prompt).strip()
        word = line.split(" ", 1)[0].lower()
        words = {"pass": "p", "fail": "f", "skip": "s", "undo": "u", "quit": "q", "yes": "y", "no": "n"}
        key = words.get(word, word)
        if key == "?":
            say(f"{definition}\n{_KEYS}")
        elif len(key) == 1 and key in keys:
            return key + line[len(word) :]
        else:
            say(f"Give one of {', '.join(keys)}.")


def _rows(path: Path) -> list[LabelledRecord]:
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
            rows.append(LabelledRecord.model_validate(json.loads(line)))
        except (ValueError, ValidationError, RecursionError):
            if number == len(lines):  # no newline behind it: a crash cut it off
                print(f"{path}: the last line is half-written and was dropped", file=sys.stderr)
                break
            raise UserError(
                f"{path}:{number}: is not a label as this program writes it; mend or remove that line"
            ) from None
    return rows


def _end_last_line(file: Any) -> None:
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
        LabelledRecord.model_validate(json.loads(tail))
        file.write(b"\n")
    except (ValueError, ValidationError, RecursionError):
        file.truncate(size - len(tail))


def _entropy(scores: Sequence[float | None]) -> float | None:
    """Entropy in bits of the mean probability of a pass; ``None`` where no judge gives one."""
    known = [score for score in scores if score is not None]
    if not known:
        return None
    p = math.fsum(known) / len(known)
    return -sum(q * math.log2(q) for q in (p, 1 - p) if q > 0)


def _fits(record: Record) -> bool:
    try:
        return bool(LabelledRecord(question=record.question, answer=record.answer))
    except ValidationError:
        return False


def _hash(*texts: str) -> int:
    content = json.dumps(texts).encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big")


def _labeller() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return ""
