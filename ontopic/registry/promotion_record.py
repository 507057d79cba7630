"""The promotion record: an append-only, hash-chained log of every gate, promotion, refusal, rollback and approval."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from ontopic.errors import UserError
from ontopic.registry.record_signing import signature, signing_key
from ontopic.state.lines import Lines, as_lines
from ontopic.state.workspace import Workspace

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
    "rollout",
    "erasure",
    "deletion",
    "edit",
]
"""A ``look`` at held-out questions and an ``opening`` of the sealed ones are entered before anything is asked; a
``rehearsal`` is one that kept a challenger from a look; a ``rollout`` begins, has passed a stage, or is over; an
``erasure`` of traffic and an ``edit`` of the pairs that the next training sees are about no version."""
OF_NO_VERSION: tuple[EntryKind, ...] = ("erasure", "deletion", "edit")
"""What may stand between a gate and what follows it."""
FIRST = "0" * 64
"""What the first entry names as the hash of the one before."""
_NOT_HASHED = ("sha256", "signature")


class Entry(BaseModel):
    """One line of the record.

    Attributes:
        number: 1 for the first entry of the file.
        version: of the registered model that it is about.
        by: who did it: a person, the loop, `watch` or the canary.
        facts: the evidence, by name. ``files`` among them are paths, relative to the state folder, with their sha256.
        previous: ``sha256`` of the entry before, which chains them.
        sha256: see ``entry_sha256``.
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
        """What ``sha256`` must be of an entry that this release writes."""
        return entry_sha256(self.model_dump(mode="json"))


class Line(BaseModel):
    """A line of the record as it is found.

    Attributes:
        number: 1 for the first line.
        entry: ``None`` where the line is not one.
        ended: whether a newline is behind it; else a crash cut it off, or its newline.
    """

    model_config = ConfigDict(frozen=True)
    number: int
    content: bytes
    entry: Entry | None
    ended: bool


class PromotionRecord:
    """The entries, as lines that are only ever appended to; they last when a call returns.

    A last line that a crash left half-written counts as none, and the next entry takes its place.

    Args:
        place: ``Workspace.lines`` of the record, or its file; may be used by several processes at once.
    """

    def __init__(self, place: Path | Lines) -> None:
        self.kept = as_lines(place)

    @classmethod
    def of(cls, workspace: Workspace) -> PromotionRecord:
        """That of a workspace."""
        return cls(workspace.lines(workspace.promotion_record))

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
            facts: must be JSON, without NaN and infinity.
            at: now where it is not given.

        Raises:
            UserError: the last line is no entry, or the signing key that is configured is none.
            ValueError: the facts are not JSON.
        """
        key = signing_key()
        by, why, kept = _encodable([by, why, dict(facts)])
        added: list[Entry] = []

        def make(n: int, last: bytes) -> bytes:
            before = _entry(last) if n else None
            if n and before is None:
                raise self._unreadable(n)
            entry = Entry(
                number=before.number + 1 if before else 1,
                at=at or datetime.now(UTC),
                kind=kind,
                registered_model=registered_model,
                version=version,
                by=by,
                why=why,
                facts=kept,
                previous=before.sha256 if before else FIRST,
            )
            sha256 = entry.digest()
            signed = None if key is None else signature(sha256, key)
            added.append(entry.model_copy(update={"sha256": sha256, "signature": signed}))
            return entry_line(added[-1].model_dump(mode="json"))

        self.kept.append(make)
        return added[-1]

    def entries(self, registered_model: str | None = None) -> list[Entry]:
        """The entries, of one registered model or of all, in their order.

        Raises:
            UserError: a line is no entry.
        """
        found = []
        for line in self.lines():
            if line.entry is not None:
                found.append(line.entry)
            elif line.ended:
                raise self._unreadable(line.number)
        return [entry for entry in found if registered_model in (None, entry.registered_model)]

    def gates(self, registered_model: str) -> list[Entry]:
        """The entries of gates that were run: each is a look at held-out questions."""
        return [entry for entry in self.entries(registered_model) if entry.kind == "gate"]

    def lines(self) -> Iterator[Line]:
        """What is there, line by line, whether or not it is an entry.

        Raises:
            UserError: it can't be read.
        """
        try:
            content = self.kept.read()
        except OSError as error:
            raise UserError(
                f"{self.kept}: the promotion record cannot be read ({error.strerror}); check the file and its rights"
            ) from None
        lines = content.split(b"\n")
        for number, line in enumerate(lines, start=1):
            ended = number < len(lines)
            if ended or line:
                yield Line(number=number, content=line, entry=_entry(line), ended=ended)

    def moving(self) -> AbstractContextManager[object]:
        """Held by who moves a champion's alias, from the look at who is the champion until the alias is moved."""
        return self.kept.lock("moving.lock")

    def deciding(self) -> AbstractContextManager[object]:
        """Held by who decides on a challenger that waits, or deletes a version; it may move the alias meanwhile."""
        return self.kept.lock("deciding")

    def _unreadable(self, number: int) -> UserError:
        return UserError(
            f"{self.kept}:{number}: is no entry of the promotion record; put the file back from a copy, or move it "
            "away and keep it: a new record then begins"
        )


def entry_line(content: Mapping[str, Any]) -> bytes:
    """An entry as it stands in the file, without its newline: ASCII JSON with sorted keys and no spaces.

    Raises:
        ValueError: it is not JSON.
    """
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def entry_sha256(content: Mapping[str, Any]) -> str:
    """What chains an entry: sha256 (hex) of its line without ``sha256`` and ``signature``."""
    said = {name: value for name, value in content.items() if name not in _NOT_HASHED}
    return hashlib.sha256(entry_line(said)).hexdigest()


def _entry(line: bytes) -> Entry | None:
    try:
        return Entry.model_validate(json.loads(line))
    except (ValueError, ValidationError, RecursionError):
        return None


def _encodable(value: Any) -> Any:
    """JSON without lone surrogates, which no file can hold."""
    return json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
