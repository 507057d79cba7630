"""A record as a row of the traffic store's table, and back; and without the personal data in its texts."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from functools import cache
from typing import Any

import sqlalchemy as sql

from ontopic.records import Record
from ontopic.state.sqlite_file import naive_utc
from ontopic.traffic.redaction import KINDS, redact

# No part of an id that is derived, as releases up to 0.1 did not know them.
_NEWER = {"messages", "parameters", "conversation", "user", "key", "metadata", "guard"}
_JSON = ("messages", "parameters", "metadata", "guard")


def without_personal_data(record: Record) -> Record:
    """A record whose texts may be stored, also those of its conversation; what question and answer held is counted."""
    plain = cache(redact)  # the question is one of the messages
    counts = dict(record.redacted)
    for found in (plain(record.question), plain(record.answer)):
        for kind, n in found.counts.items():
            counts[kind] = counts.get(kind, 0) + n
    messages = [m.model_copy(update={"content": plain(m.content).text}) for m in record.messages]
    return record.model_copy(
        update={
            "question": plain(record.question).text,
            "answer": plain(record.answer).text,
            "messages": tuple(messages),
            "redacted": counts,
        }
    )


def said_by(record: Record, registered_model: str, *, redacted: bool, nul: bool) -> dict[str, Any]:
    """What a record says, as it may be stored; its id and its time may be missing.

    Args:
        registered_model: whose the record is where it does not say.
        redacted: whether personal data is taken out.
        nul: whether the database can hold a NUL; U+FFFD stands in its place where not.
    """
    said = (without_personal_data(record) if redacted else record).model_dump()
    said["registered_model"] = said["registered_model"] or registered_model
    if not nul:
        said |= {name: said[name].replace("\0", "\ufffd") for name in ("question", "answer")}
    said["asked_at"] = said["asked_at"] and naive_utc(said["asked_at"])
    return said


def row_of(said: dict[str, Any]) -> dict[str, Any]:
    """What a record says as a row, with an id and times."""
    now, counts = naive_utc(datetime.now(UTC)), said["redacted"]
    row = {name: value for name, value in said.items() if name != "redacted"}
    row |= {"id": said["id"] or derived_id(said), "stored_at": now, "asked_at": said["asked_at"] or now}
    for name in _JSON:
        # Not in ASCII, so that what no database takes is refused here as it is in question and answer.
        row[name] = json.dumps(said[name], ensure_ascii=False) if said[name] else None
    return row | {f"redacted_{kind}": counts.get(kind, 0) for kind in KINDS}


def derived_id(said: dict[str, Any], *, of_model: bool = True) -> str:
    """An id that follows from all that a record says, personal data, the request around the question and a missing time
    aside.

    Args:
        of_model: whether its registered model counts, which releases up to 0.1 did not know.
    """
    left_out = _NEWER | ({"redacted"} if of_model and said["registered_model"] else {"redacted", "registered_model"})
    content = {name: value for name, value in said.items() if name not in left_out}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]


def record_of(row: sql.Row[Any]) -> Record:
    """The record that a row holds."""
    values = row._asdict() | {"asked_at": row.asked_at.replace(tzinfo=UTC)}
    counts = {kind: values.pop(f"redacted_{kind}") for kind in KINDS}
    values |= {name: json.loads(values[name]) for name in _JSON if values[name]}
    values = {name: value for name, value in values.items() if value is not None or name not in _JSON}
    return Record.model_validate(values | {"redacted": {kind: n for kind, n in counts.items() if n}})
