"""Erasing traffic: what is to go is written down, with all that was said in it; then records and spool lose it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ontopic.records import Record
from ontopic.state.erasing import Erasing
from ontopic.traffic.store import TrafficStore

_PAGE = 500


class Selection(BaseModel):
    """Whose records, or which: one of the three, as it is stored."""

    model_config = ConfigDict(frozen=True)
    user: str = ""
    conversation: str = ""
    record: str = ""

    def ids(self, store: TrafficStore) -> list[str]:
        """Those that are stored."""
        return store.ids(user=self.user, conversation=self.conversation, record=self.record)

    def fits(self, record: Record) -> bool:
        """Whether it is one of them."""
        held = {"user": record.user, "conversation": record.conversation, "record": record.id}
        return all(held[name] == value for name, value in self.model_dump().items() if value)


def collect(store: TrafficStore, pages: Iterable[Sequence[str]], *, erasing: Erasing) -> None:
    """Write down which stored records are to go, and what was said in them; they stay for now."""
    for ids in pages:
        for start in range(0, len(ids), _PAGE):
            part = ids[start : start + _PAGE]
            _collect(store.records(ids=part), erasing)
            erasing.add((), _said_of(store, part) | ({answer.answer for answer in store.shadow(part)} - {""}))


def collect_spooled(folders: Iterable[Path], which: Callable[[Record], bool], *, erasing: Erasing) -> None:
    """The same of records that wait in spools."""
    for folder in folders:
        _collect([record for _, record in _spooled(folder) if which(record)], erasing)


def spare_others(store: TrafficStore, erasing: Erasing, *, repeated: bool) -> None:
    """Leave out what other stored records say too: that stays theirs.

    Args:
        store: of all registered models.
        repeated: whether what a later request of the same conversation repeats goes too.
    """
    for record in store.stream():
        if erasing.has_id(record.id):
            continue
        erasing.spare((record.question, record.answer))
        if not (repeated and erasing.has_conversation(record.conversation)):
            erasing.spare(message.content for message in record.messages)
    erasing.spare(
        text
        for each in store.feedback()
        if not erasing.has_id(each.record_id)
        for text in (each.comment, each.correction)
    )


def erase_records(store: TrafficStore, erasing: Erasing, *, repeated: bool) -> None:
    """Delete the records, and what was thought of them."""
    for ids in erasing.ids(_PAGE):
        erasing.count("records", store.erase(ids, repeated=repeated))


def erase_spooled(folder: Path, erasing: Erasing) -> None:
    """Delete what waits in a spool; the same that a process is about to store is deleted where it is stored."""
    for path, record in _spooled(folder):
        if erasing.has_id(record.id):
            path.unlink(missing_ok=True)
            erasing.count("records in the spool")


def _said_of(store: TrafficStore, ids: Sequence[str]) -> set[str]:
    """What people wrote on these records."""
    return {text for each in store.feedback(ids) for text in (each.comment, each.correction)} - {""}


def _collect(records: Sequence[Record], erasing: Erasing) -> None:
    texts = {text for record in records for text in _texts(record)} - {""}
    conversations = {record.conversation for record in records} - {""}
    erasing.add((record.id for record in records), texts, conversations=conversations)
    erasing.add_questions(record.question for record in records)


def _texts(record: Record) -> Iterator[str]:
    yield from (record.question, record.answer, *(message.content for message in record.messages))
    if record.guard is not None:
        yield record.guard.withheld


def _spooled(folder: Path) -> Iterator[tuple[Path, Record]]:
    for path in folder.glob("*.json"):
        try:
            yield path, Record.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError):  # stored meanwhile; or no record, which the spool sets aside
            continue
