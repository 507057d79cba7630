"""A record as a row of the traffic store's table, and back."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sql

from ontopic.records import Record
from ontopic.state.sqlite_file import naive_utc
from ontopic.traffic.redaction import KINDS, redact


def said_by(record: Record, registered_model: str, *, redacted: bool, nul: bool) -> dict[str, Any]:
    """What a record says, as it may be stored; its id and its time may be missing.

    Args:
        registered_model: whose the record is where it does not say.
        redacted: whether personal data is taken out.
        nul: whether the database can hold a NUL; U+FFFD stands in its place where not.
    """
    said = record.model_dump()
    said["registered_model"] = said["registered_model"] or registered_model
    for name in ("question", "answer"):
        if redacted:
            plain, counts = redact(said[name]), said["redacted"]
            said[name] = plain.text
            said["redacted"] = {kind: counts.get(kind, 0) + plain.counts.get(kind, 0) for kind in KINDS}
        if not nul:
            said[name] = said[name].replace("\0", "\ufffd")
    said["asked_at"] = said["asked_at"] and naive_utc(said["asked_at"])
    return said


def row_of(said: dict[str, Any]) -> dict[str, Any]:
    """What a record says as a row, with an id and times."""
    now, counts = naive_utc(datetime.now(UTC)), said["redacted"]
    row = {name: value for name, value in said.items() if name not in ("redacted", "conversation")}
    row |= {"id": said["id"] or derived_id(said), "stored_at": now, "asked_at": said["asked_at"] or now}
    return row | {f"redacted_{kind}": counts.get(kind, 0) for kind in KINDS}


def derived_id(said: dict[str, Any], *, of_model: bool = True) -> str:
    """An id that follows from all that a record says, personal data and a missing time aside.

    Args:
        of_model: whether its registered model counts, which releases up to 0.1 did not know.
    """
    left_out = {"redacted", "conversation"}
    if not (of_model and said["registered_model"]):
        left_out.add("registered_model")
    content = {name: value for name, value in said.items() if name not in left_out}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]


def record_of(row: sql.Row[Any]) -> Record:
    """The record that a row holds."""
    values = row._asdict() | {"asked_at": row.asked_at.replace(tzinfo=UTC)}
    counts = {kind: values.pop(f"redacted_{kind}") for kind in KINDS}
    return Record.model_validate(values | {"redacted": {kind: n for kind, n in counts.items() if n}})
