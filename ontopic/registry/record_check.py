"""Does the promotion record still say what was written into it? Its chain, signatures, files, and the registry."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from ontopic.errors import UserError
from ontopic.registry.promotion_record import FIRST, Entry, Line, PromotionRecord, entry_line, entry_sha256
from ontopic.registry.promotions import ModelRegistry
from ontopic.registry.record_signing import is_signed
from ontopic.state.workspace import Workspace

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class RecordCheck(BaseModel):
    """What was found.

    Attributes:
        head: ``sha256`` of the last entry, which stands for all of them; to be kept elsewhere.
        signed: how many entries have a signature, looked at or not.
        files: how many files the entries name.
        faults: what is not as it was written, a sentence each.
        notes: what a reader should know besides.
    """

    model_config = ConfigDict(frozen=True)
    entries: int
    head: str
    signed: int
    files: int
    faults: list[str]
    notes: list[str]


def check_record(
    record: PromotionRecord,
    *,
    workspace: Workspace,
    registries: Sequence[ModelRegistry],
    key: Ed25519PublicKey | None = None,
    head: str = "",
) -> RecordCheck:
    """Look at every line, at the files that the entries name, and at what the registry remembers.

    Args:
        workspace: to whose state folder the files' paths are relative.
        registries: of the registered models whose champions and heads are compared.
        key: of the signatures; without it they are not looked at.
        head: ``sha256`` of an entry that was kept elsewhere, which must be among these.

    Raises:
        UserError: the record can't be read.
    """
    lines = list(record.lines())
    entries = [line.entry for line in lines if line.entry is not None]
    erased = _erased(entries)
    files = [(entry, path, _after(path, sha256, erased=erased)) for entry in entries for path, sha256 in _files(entry)]
    faults = [f"{record.kept}:{fault}" for fault in _chain(lines)]
    notes = []
    if lines and not lines[-1].ended and lines[-1].entry is None:
        notes.append(f"{record.kept}:{len(lines)}: was cut off while it was written; the next entry takes its place")
    signed = sum(entry.signature is not None for entry in entries)
    if key is not None:
        faults += [f"{record.kept}:{fault}" for fault in _signatures(lines, key)]
    elif signed:
        notes.append(f"{signed} of {len(entries)} entries are signed; --public-key FILE looks at the signatures")
    if n := len({path for path, _ in erased}):
        notes.append(f"{n} files of evidence lack what was erased from traffic, as entries of kind erasure say")
    known = {entry.sha256: entry.number for entry in entries}
    if head and head not in known:
        faults.append(f"no entry has the hash {head[:80]}: entries were taken away or replaced since it was kept")
    faults += [f"{record.kept}:{entry.number}: {said}" for entry, said in _wrong_files(files, workspace)]
    for registry in registries:
        faults += [f"{registry.name}: {fault}" for fault in _registry(registry, entries)]
    return RecordCheck(
        entries=len(entries),
        head=entries[-1].sha256 if entries else FIRST,
        signed=signed,
        files=len(files),
        faults=faults,
        notes=notes,
    )


def _chain(lines: Sequence[Line]) -> Iterator[str]:
    """What is wrong with which line; each is held against the one before it as it stands."""
    before: Entry | None = None
    unknown = False  # what the line before was
    for line in lines:
        if line.entry is None:
            if line.ended:
                yield f"{line.number}: is no entry"
                unknown = True
            continue
        entry = line.entry
        content = json.loads(line.content)
        if line.content != entry_line(content):
            yield f"{line.number}: is written in another way than this program writes; it was changed"
        if entry.sha256 != entry_sha256(content):
            yield f"{line.number}: was changed: its hash is not that of what it says"
        if entry.number != line.number:
            yield f"{line.number}: is numbered {entry.number}; lines were removed, added or reordered"
        if not unknown and entry.previous != (before.sha256 if before else FIRST):
            yield f"{line.number}: does not follow the line before it; one was removed, added, changed or reordered"
        before, unknown = entry, False


def _signatures(lines: Sequence[Line], key: Ed25519PublicKey) -> Iterator[str]:
    """Entries from before a key was configured may be unsigned: the chain of the first signed one holds them."""
    entries = [(line.number, line.entry) for line in lines if line.entry is not None]
    signed = [number for number, entry in entries if entry.signature is not None]
    if entries and not signed:
        yield f"{entries[-1][0]}: no entry is signed; were they signed before, the signatures were taken away"
    for number, entry in entries:
        if entry.signature is None and signed and number > signed[0]:
            yield f"{number}: is not signed, and entries before it are"
        elif entry.signature is not None and not is_signed(entry.sha256, entry.signature, by=key):
            yield f"{number}: its signature is not of this key"


def _files(entry: Entry) -> Iterator[tuple[str, str]]:
    files: Any = entry.facts.get("files")
    if isinstance(files, dict):
        yield from ((path, sha256) for path, sha256 in files.items() if isinstance(sha256, str))


def _erased(entries: Sequence[Entry]) -> dict[tuple[str, str], str]:
    """What erasures made of files: the hash after it, empty where the file went, by path and the hash before it."""
    found = {}
    for entry in entries:
        rows: Any = entry.facts.get("rewritten") if entry.kind == "erasure" else None
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, list) and len(row) == 3 and all(isinstance(each, str) for each in row):
                found[row[0], row[1]] = row[2]
    return found


def _after(path: str, sha256: str, *, erased: Mapping[tuple[str, str], str]) -> str:
    """The hash that a file must have by now."""
    passed = set[str]()
    while (path, sha256) in erased and sha256 not in passed:
        passed.add(sha256)
        sha256 = erased[path, sha256]
    return sha256


def _wrong_files(files: Sequence[tuple[Entry, str, str]], workspace: Workspace) -> Iterator[tuple[Entry, str]]:
    kept = workspace.files
    for entry, path, sha256 in files:
        where = kept.where(workspace.root / path)
        try:
            found = hashlib.sha256(kept.read(workspace.root / path)).hexdigest()
        except OSError as error:
            if not sha256:  # an erasure took it away
                continue
            yield entry, f"{where} cannot be read ({error.strerror}), which this entry names as evidence"
            continue
        except UserError as error:  # what the database holds is not what was stored
            yield entry, str(error)
            continue
        if found != sha256:
            yield entry, f"{where} is not the file that this entry names as evidence: its hash has changed"


def _registry(registry: ModelRegistry, entries: Sequence[Entry]) -> Iterator[str]:
    by_hash = {entry.sha256: entry for entry in entries}
    own = [entry for entry in entries if entry.registered_model == registry.name]
    for head in registry.heads():
        if head.sha256 not in by_hash:
            yield (
                f"the registry remembers entry {head.number} with the hash {head.sha256[:16]}…, which the record does "
                "not hold: entries were taken away or replaced, or another state folder writes to the same registry"
            )
    moves = {(entry.version, entry.at) for entry in own if entry.kind in ("promotion", "rollback")}
    for promotion in registry.promotions():
        began = promotion.entry is not None or (bool(own) and promotion.at >= own[0].at)
        if began and (promotion.version, promotion.at) not in moves:
            yield f"the registry has a move to version {promotion.version} by {promotion.by} that is not on record"
    if said := registry.off_record(own):
        yield said
