"""A record as rows of the traffic store's tables, and back; and without the personal data in its texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import sqlalchemy as sql
from pydantic import BaseModel

from ontopic.records import GuardDecision, Message, Parameters, Record
from ontopic.state.sqlite_file import naive_utc
from ontopic.traffic.redaction import KINDS, redact

# No part of an id that is derived, as releases up to 0.1 did not know them.
_NEWER = {"messages", "parameters", "conversation", "user", "key", "metadata", "guard", "rollout"}
_ORIGIN = ("conversation", "user", "key")
_OF_ROW = ("seq", "parent", "origin", "text", "stored_at")  # of the store, not of the record


@dataclass(frozen=True)
class Said:
    """What a record says, as it may be stored.

    Attributes:
        row: of the table of records, but for what follows from others there.
        origin: of the table of origins, but for the prompt.
        messages: the whole request.
        older_id: which releases up to 0.1 derived; empty where the record has one.
    """

    row: dict[str, Any]
    origin: dict[str, Any]
    messages: tuple[Message, ...]
    older_id: str

    @property
    def conversation(self) -> str:
        """Which conversation the record is part of; empty where it is not known."""
        return str(self.origin["conversation"])


def without_personal_data(record: Record) -> Record:
    """A record whose texts may be stored, whoever wrote them; what question and answer held is counted."""
    plain = cache(redact)  # the question is one of the messages
    counts = dict(record.redacted)
    for found in (plain(record.question), plain(record.answer)):
        for kind, n in found.counts.items():
            counts[kind] = counts.get(kind, 0) + n
    guard = record.guard
    return record.model_copy(
        update={
            "question": plain(record.question).text,
            "answer": plain(record.answer).text,
            "messages": tuple(m.model_copy(update={"content": plain(m.content).text}) for m in record.messages),
            "metadata": {name: plain(value).text for name, value in record.metadata.items()},
            "guard": guard and guard.model_copy(update={"withheld": plain(guard.withheld).text}),
            "redacted": counts,
        }
    )


def said_by(record: Record, registered_model: str, *, redacted: bool, nul: bool) -> Said:
    """What a record says; its id may be missing, in whose place one is derived, and its time.

    Args:
        registered_model: whose the record is where it does not say.
        redacted: whether personal data is taken out.
        nul: whether the database can hold a NUL; U+FFFD stands in its place where not.
    """
    record = without_personal_data(record) if redacted else record
    said = record.model_dump(exclude={"messages"})
    said["registered_model"] = said["registered_model"] or registered_model
    if not nul:
        texts = ("question", "answer", *_ORIGIN)
        said |= {name: said[name].replace("\0", "\ufffd") for name in texts}
    said["asked_at"] = said["asked_at"] and naive_utc(said["asked_at"])
    now, counts = naive_utc(datetime.now(UTC)), said["redacted"]
    left_out = {"redacted", "guard", "parameters", "metadata", *_ORIGIN}
    row = {name: value for name, value in said.items() if name not in left_out}
    row |= {"id": said["id"] or _derived_id(said), "stored_at": now, "asked_at": said["asked_at"] or now}
    row |= {
        "rollout": said["rollout"] or None,
        "guard": short_json(said["guard"], GuardDecision),
        **{f"redacted_{kind}": counts.get(kind, 0) for kind in KINDS},
    }
    origin = {name: said[name] for name in _ORIGIN}
    origin |= {"parameters": short_json(said["parameters"], Parameters), "metadata": short_json(said["metadata"])}
    return Said(row, origin, record.messages, "" if said["id"] else _derived_id(said, of_model=False))


def short_json(values: Mapping[str, Any] | None, model: type[BaseModel] | None = None) -> str | None:
    """What is not as the model has it by default; ``None`` where there is nothing."""
    if not values:
        return None
    if model is not None:
        values = {name: value for name, value in values.items() if value != model.model_fields[name].default}
    # Not in ASCII, so that what no database takes is refused here as it is in question and answer.
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def _derived_id(said: dict[str, Any], *, of_model: bool = True) -> str:
    """An id that follows from all that a record says, personal data, the request around the question and a missing time
    aside.

    Args:
        of_model: whether its registered model counts, which releases up to 0.1 did not know.
    """
    left_out = _NEWER | ({"redacted"} if of_model and said["registered_model"] else {"redacted", "registered_model"})
    content = {name: value for name, value in said.items() if name not in left_out}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]


def record_of(row: sql.Row[Any], messages: tuple[Message, ...]) -> Record:
    """The record that a row holds."""
    values = {name: value for name, value in row._asdict().items() if name not in _OF_ROW and value is not None}
    counts = {kind: values.pop(f"redacted_{kind}") for kind in KINDS}
    values |= {name: json.loads(values[name]) for name in ("parameters", "metadata", "guard") if name in values}
    values |= {"asked_at": row.asked_at.replace(tzinfo=UTC), "messages": messages}
    return Record.model_validate(values | {"redacted": {kind: n for kind, n in counts.items() if n}})
