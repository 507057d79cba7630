"""The promotion record: an append-only, hash-chained log of every gate, promotion, refusal, rollback and approval."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, JsonValue

from ontopic.errors import UserError

EntryKind = Literal[
    "rehearsal",
    "look",
    "opening",
    "gate",
    "promotion",
    "refusal",
    "rollback",
    "waiting",
    "approval",
    "rejection",
    "expiry",
]
"""A ``look`` at held-out questions and an ``opening`` of the sealed ones are entered before anything is asked; a
``rehearsal`` is one that kept a challenger from a look."""
FIRST = "0" * 64
"""What the first entry names as the hash of the one before."""


class Entry(BaseModel):
    """One line of the record.

    Attributes:
        number: 1 for the first entry of the file.
        version: of the registered model that it is about.
        by: who did it: a person, the loop, `watch` or the canary.
        facts: the evidence, by name.
        previous: ``sha256`` of the entry before, which chains them.
        sha256: of this entry without ``sha256`` and ``signature``, as JSON with sorted keys.
        signature: Ed25519 of ``sha256``, in hex, where a key is configured.
    """

    model_config = ConfigDict(frozen=True)
    number: int
    at: datetime
    kind: EntryKind
    registered_model: str
    version: str
    by: str
    why: str
    facts: dict[str, JsonValue]
    previous: str
    sha256: str = ""
    signature: str | None = None

    def digest(self) -> str:
        """What ``sha256`` must be."""
        said = self.model_dump(mode="json", exclude={"sha256", "signature"})
        return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class PromotionRecord:
    """The entries in a JSONL file, which is only ever appended to; on disk when a call returns.

    Args:
        path: made with the first entry; may be used by several processes at once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(
        self,
        kind: EntryKind,
        registered_model: str,
        *,
        version: str,
        by: str,
        why: str,
        facts: Mapping[str, Any],
        at: datetime | None = None,
    ) -> Entry:
        """Append an entry.

        Args:
            facts: must be JSON.
            at: now where it is not given.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock"):
            before = self.entries()
            entry = Entry(
                number=len(before) + 1,
                at=at or datetime.now(UTC),
                kind=kind,
                registered_model=registered_model,
                version=version,
                by=by,
                why=why,
                facts=dict(facts),
                previous=before[-1].sha256 if before else FIRST,
            )
            entry = entry.model_copy(update={"sha256": entry.digest()})
            with self.path.open("ab") as file:
                file.write(entry.model_dump_json().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        return entry

    def entries(self, registered_model: str | None = None) -> list[Entry]:
        """The entries, of one registered model or of all, in their order.

        Raises:
            UserError: a line is no entry.
        """
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for number, line in enumerate(lines, start=1):
            try:
                found.append(Entry.model_validate_json(line))
            except ValueError:
                raise UserError(f"{self.path}:{number}: is not an entry of the promotion record") from None
        return [entry for entry in found if registered_model in (None, entry.registered_model)]

    def gates(self, registered_model: str) -> list[Entry]:
        """The entries of gates that were run: each is a look at held-out questions."""
        return [entry for entry in self.entries(registered_model) if entry.kind == "gate"]
