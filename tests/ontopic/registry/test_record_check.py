"""Whatever is done to the record afterwards, or to what it names, is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from registries import forget_heads, made_registry, move_alias

from ontopic.registry.promotion_record import entry_line, entry_sha256
from ontopic.registry.promotions import ModelRegistry
from ontopic.registry.record_check import RecordCheck, check_record
from ontopic.registry.record_signing import SIGNING_KEY
from ontopic.state.workspace import Workspace

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = Ed25519PrivateKey.generate()
Lines = list[bytes]


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    """Version 2 was promoted and rolled back, version 3 refused: six entries, two of them with files."""
    registry = made_registry(tmp_path)
    registry.promote("1", by="the loop", why="the base", at=NOON, facts={"by_hand": False})
    enter(registry, tmp_path, "2", "passed", 1)
    registry.promote("2", by="the loop", why="passed", at=NOON + timedelta(hours=2), facts={"by_hand": False})
    registry.roll_back("the canary", why="worse", at=NOON + timedelta(hours=3), facts={"lost": 9})
    enter(registry, tmp_path, "3", "failed", 4)
    registry.enter("refusal", "3", by="the loop", why="leak", facts={}, at=NOON + timedelta(hours=4))
    return registry


def enter(registry: ModelRegistry, root: Path, version: str, gate: str, hour: int) -> None:
    page = root / "evidence" / f"{version}.html"
    page.parent.mkdir(exist_ok=True)
    page.write_text(f"the page of {version}")
    files = {f"evidence/{version}.html": hashlib.sha256(page.read_bytes()).hexdigest()}
    facts = {"gate": gate, "against": "1", "files": files}
    registry.enter("gate", version, by="the loop", why=gate, facts=facts, at=NOON + timedelta(hours=hour))


def check(registry: ModelRegistry, head: str = "", key: Ed25519PrivateKey | None = None) -> RecordCheck:
    public = None if key is None else key.public_key()
    root = registry.record.kept.path.parent
    return check_record(registry.record, workspace=Workspace(root=root), registries=[registry], key=public, head=head)


def test_what_was_only_written_holds(registry: ModelRegistry) -> None:
    found = check(registry)
    assert (found.faults, found.notes, found.entries, found.files, found.signed) == ([], [], 6, 2, 0)
    assert found.head == registry.record.entries()[-1].sha256
    assert check(registry, head=registry.record.entries()[2].sha256).faults == []


def test_no_record_yet_is_no_fault(tmp_path: Path) -> None:
    found = check(made_registry(tmp_path))
    assert (found.faults, found.entries, found.head) == ([], 0, "0" * 64)


def edited(line: bytes, rehash: bool = False, **changes: object) -> bytes:
    content = json.loads(line) | changes
    if rehash:
        content["sha256"] = entry_sha256(content)
    return entry_line(content)


def rechained(lines: Lines, first: int) -> Lines:
    """The lines from the first one on, with hashes that fit each other."""
    for i in range(first, len(lines)):
        previous = json.loads(lines[i - 1])["sha256"] if i else "0" * 64
        lines[i] = edited(lines[i], rehash=True, previous=previous, number=i + 1)
    return lines


TAMPERED: dict[str, tuple[Callable[[Lines], Lines], str]] = {
    "a word": (lambda s: [*s[:1], s[1].replace(b"passed", b"failed"), *s[2:]], ":2: was changed"),
    "a word of the last": (lambda s: [*s[:5], s[5].replace(b"leak", b"luck")], ":6: was changed"),
    "a number": (lambda s: [*s[:3], s[3].replace(b'"lost":9', b'"lost":8'), *s[4:]], ":4: was changed"),
    "who": (lambda s: [edited(s[0], by="eve"), *s[1:]], ":1: was changed"),
    "when": (lambda s: [edited(s[0], at="2026-03-02T12:00:00Z"), *s[1:]], ":1: was changed"),
    "a hash to fit": (lambda s: [edited(s[0], rehash=True, by="eve"), *s[1:]], ":2: does not follow the line before"),
    "a space": (lambda s: [s[0].replace(b",", b", ", 1), *s[1:]], ":1: is written in another way"),
    "a second value": (lambda s: [s[0].replace(b'"by":', b'"by":"eve","by":', 1), *s[1:]], ":1: is written in another"),
    "an unknown key": (lambda s: [edited(s[0], note="read me"), *s[1:]], ":1: was changed"),
    "removed": (lambda s: s[:2] + s[3:], ":3: is numbered 4; lines were removed"),
    "the first removed": (lambda s: s[1:], ":1: does not follow the line before"),
    "reordered": (lambda s: [s[0], s[2], s[1], *s[3:]], ":2: is numbered 3; lines were"),
    "doubled": (lambda s: [*s[:2], s[1], *s[2:]], ":3: is numbered 2; lines were"),
    "put in": (lambda s: [*s[:2], edited(s[1], rehash=True, number=3), *s[2:]], ":3: does not follow the line before"),
    "unreadable": (lambda s: [*s[:2], b"###", *s[3:]], ":3: is no entry"),
    "emptied line": (lambda s: [*s[:2], b"", *s[3:]], ":3: is no entry"),
    "the tail cut off": (lambda s: s[:4], "the registry remembers entry 6"),
    "the last cut off": (lambda s: s[:5], "the registry remembers entry 6"),
    "all cut off": (lambda s: [], "the registry remembers entry 6"),
    "rewritten to fit": (
        lambda s: rechained([*s[:1], edited(s[1], why="as we like it"), *s[2:]], 1),
        "the registry remembers entry 6",
    ),
    "removed to fit": (lambda s: rechained(s[:2] + s[3:], 2), "the registry has a move to version 2 by the loop"),
}


@pytest.mark.parametrize(("tamper", "said"), TAMPERED.values(), ids=TAMPERED)
def test_tampering_is_found(registry: ModelRegistry, tamper: Callable[[Lines], Lines], said: str) -> None:
    lines = registry.record.kept.path.read_bytes().splitlines()
    changed = tamper(list(lines))
    assert changed != lines
    registry.record.kept.path.write_bytes(b"".join(line + b"\n" for line in changed))
    faults = check(registry).faults
    assert any(said in fault for fault in faults), faults


def test_the_missing_file_of_a_record_is_found(registry: ModelRegistry) -> None:
    registry.record.kept.path.unlink()
    assert any("the registry remembers entry 6" in fault for fault in check(registry).faults)


def test_a_tail_that_was_cut_off_is_missed_after_later_entries_too(registry: ModelRegistry) -> None:
    lines = registry.record.kept.path.read_bytes().splitlines(keepends=True)
    registry.record.kept.path.write_bytes(b"".join(lines[:4]))
    registry.enter("refusal", "3", by="the loop", why="anew", facts={})
    registry.enter("refusal", "3", by="the loop", why="anew", facts={})
    assert any("the registry remembers entry 6" in fault for fault in check(registry).faults)


def test_a_head_that_was_kept_elsewhere_is_missed(registry: ModelRegistry) -> None:
    """Also where whoever cut the tail off changed the registry too."""
    head = registry.record.entries()[-1].sha256
    lines = registry.record.kept.path.read_bytes().splitlines(keepends=True)
    registry.record.kept.path.write_bytes(b"".join(lines[:4]))
    forget_heads(registry)
    assert check(registry).faults == []
    (fault,) = check(registry, head=head).faults
    assert fault.startswith(f"no entry has the hash {head}")


def test_moves_that_the_registry_shows_are_missed_without_a_head(registry: ModelRegistry) -> None:
    forget_heads(registry)
    registry.record.kept.path.unlink()
    faults = check(registry).faults
    assert len(faults) == 3 and all("that is not on record" in fault for fault in faults)


@pytest.mark.parametrize(("change", "said"), [("the page of two", "its hash has changed"), (None, "cannot be read")])
def test_a_file_that_an_entry_names_is_held_to_its_hash(registry: ModelRegistry, change: str | None, said: str) -> None:
    page = registry.record.kept.path.parent / "evidence" / "2.html"
    if change is None:
        page.unlink()
    else:
        page.write_text(change)
    (fault,) = check(registry).faults
    assert fault.startswith(f"{registry.record.kept.path}:2: {page}") and said in fault


def test_a_half_written_last_line_is_a_note(registry: ModelRegistry) -> None:
    with registry.record.kept.path.open("ab") as file:
        file.write(b'{"at":"2026')
    found = check(registry)
    assert found.faults == [] and found.entries == 6
    assert found.notes == [
        f"{registry.record.kept.path}:7: was cut off while it was written; the next entry takes its place"
    ]


def test_an_alias_that_was_moved_by_other_means_is_found(registry: ModelRegistry) -> None:
    move_alias(registry, "3")
    (fault,) = check(registry).faults
    assert fault == (
        "ontopic-test: on record version 1 is the champion (entry 4, rollback by the canary), "
        "but the alias is on version 3"
    )


@pytest.fixture
def signing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key.pem").write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    monkeypatch.setenv(SIGNING_KEY, str(tmp_path / "key.pem"))


def test_signed_entries_hold_with_their_key_and_no_other(signing: None, registry: ModelRegistry) -> None:
    assert check(registry, key=KEY).faults == []
    assert check(registry).notes == ["6 of 6 entries are signed; --public-key FILE looks at the signatures"]
    faults = check(registry, key=Ed25519PrivateKey.generate()).faults
    assert len(faults) == 6 and all("its signature is not of this key" in fault for fault in faults)


@pytest.mark.parametrize(
    ("unsigned", "said"), [(range(6), ":6: no entry is signed"), ([3], ":4: is not signed"), ([5], ":6: is not signed")]
)
def test_signatures_that_were_taken_away_are_missed(
    signing: None, registry: ModelRegistry, unsigned: list[int], said: str
) -> None:
    lines = registry.record.kept.path.read_bytes().splitlines()
    lines = [edited(line, signature=None) if i in unsigned else line for i, line in enumerate(lines)]
    registry.record.kept.path.write_bytes(b"".join(line + b"\n" for line in lines))
    (fault,) = check(registry, key=KEY).faults
    assert said in fault


def test_a_chain_that_was_made_anew_lacks_the_signatures(signing: None, registry: ModelRegistry) -> None:
    lines = registry.record.kept.path.read_bytes().splitlines()
    lines = rechained([edited(lines[0], by="eve"), *lines[1:]], 0)
    registry.record.kept.path.write_bytes(b"".join(line + b"\n" for line in lines))
    forget_heads(registry)
    assert check(registry).faults == []
    assert len(check(registry, key=KEY).faults) == 6


def test_entries_of_before_the_key_are_held_by_the_first_signed_one(
    registry: ModelRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key.pem").write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    monkeypatch.setenv(SIGNING_KEY, str(tmp_path / "key.pem"))
    registry.promote("3", by="ann", why="better")
    assert check(registry, key=KEY).faults == []
    lines = registry.record.kept.path.read_bytes().splitlines()
    lines = rechained([edited(lines[0], by="eve"), *lines[1:]], 0)
    registry.record.kept.path.write_bytes(b"".join(line + b"\n" for line in lines))
    forget_heads(registry)
    (fault,) = check(registry, key=KEY).faults
    assert ":7: its signature is not of this key" in fault


def test_a_file_that_an_erasure_rewrote_is_as_that_says_and_not_otherwise(registry: ModelRegistry) -> None:
    root = registry.record.kept.path.parent
    paths = [root / "evidence" / f"{version}.html" for version in "23"]
    for content in ("less", "still less", ""):
        rewritten = []
        for path in paths:
            before = hashlib.sha256(path.read_bytes()).hexdigest()
            path.write_text(content)
            after = hashlib.sha256(path.read_bytes()).hexdigest() if content else ""
            rewritten.append([f"evidence/{path.name}", before, after])
        facts = {"records": 1, "rewritten": rewritten}
        registry.enter("erasure", "", by="root", why="a user was erased", facts=facts)
        for path in paths if not content else ():
            path.unlink()
        found = check(registry)
        assert found.faults == []
        assert any("2 files of evidence lack what was erased" in note for note in found.notes)
        if content:
            paths[0].write_text("by hand")
            assert "its hash has changed" in check(registry).faults[0]
            paths[0].write_text(content)
