"""The promotion record's file: appended to by several processes, healed after a crash, told where it is damaged."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from loopback import ROOT

from ontopic.errors import UserError
from ontopic.registry.promotion_record import FIRST, Entry, PromotionRecord
from ontopic.state.workspace import Workspace

NAME = "ontopic-test"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def record(tmp_path: Path) -> PromotionRecord:
    return PromotionRecord(tmp_path / "state" / "promotions.jsonl")


def added(record: PromotionRecord, version: str, name: str = NAME, **facts: object) -> Entry:
    return record.add("gate", name, version=version, by="ann", why="to see", facts=facts, at=NOON)


def test_entries_are_numbered_chained_and_read_back(record: PromotionRecord) -> None:
    assert record.entries() == []
    first = added(
        record, "1", text='é \ud800 \n "quoted" \u2028', number=1e-7, big=10**20, nested={"b": [None, True], "a": 1}
    )
    second = added(record, "2", "ontopic-other")
    third = record.add("refusal", NAME, version="1", by="the loop", why="", facts={})
    assert record.entries() == [first, second, third]
    assert record.entries(NAME) == [first, third]
    assert record.gates(NAME) == [first]
    assert [entry.number for entry in record.entries()] == [1, 2, 3]
    assert [entry.previous for entry in record.entries()] == [FIRST, first.sha256, second.sha256]
    assert all(entry.digest() == entry.sha256 for entry in record.entries())
    assert first.facts["text"] == 'é ? \n "quoted" \u2028'
    assert (first.at, third.at.tzinfo) == (NOON, UTC)


def test_a_line_can_be_checked_by_other_means(record: PromotionRecord) -> None:
    added(record, "1", share=0.85)
    content = json.loads(record.kept.path.read_text())
    said, signature = content.pop("sha256"), content.pop("signature")
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert (hashlib.sha256(text.encode()).hexdigest(), signature) == (said, None)


def test_what_is_no_json_is_refused_and_nothing_is_written(record: PromotionRecord) -> None:
    for fact in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not JSON compliant"):
            added(record, "1", fact=fact)
    with pytest.raises(TypeError):
        added(record, "1", fact={1, 2})
    assert record.entries() == []


@pytest.mark.parametrize("cut", [1, 40, -1])
def test_a_line_that_a_crash_cut_off_counts_as_none_and_is_replaced(record: PromotionRecord, cut: int) -> None:
    first = added(record, "1")
    whole = record.kept.path.read_bytes()
    added(record, "2")
    line = record.kept.path.read_bytes()[len(whole) :].rstrip(b"\n")
    record.kept.path.write_bytes(whole + line[:cut])
    assert record.entries() == [first]
    second = added(record, "3")
    assert (second.number, second.previous) == (2, first.sha256)
    assert record.entries() == [first, second]


def test_a_last_line_that_only_lacks_its_newline_counts(record: PromotionRecord) -> None:
    first, second = added(record, "1"), added(record, "2")
    record.kept.path.write_bytes(record.kept.path.read_bytes().rstrip(b"\n"))
    assert record.entries() == [first, second]
    third = added(record, "3")
    assert record.entries() == [first, second, third]
    assert third.previous == second.sha256


@pytest.mark.parametrize("junk", [b"", b"junk", b"{}", b'{"number": 1}', b"[" * 100_000, b"\xff\xfe"])
def test_an_unreadable_line_is_one_sentence_with_its_place(record: PromotionRecord, junk: bytes) -> None:
    added(record, "1")
    added(record, "2")
    one, two, _ = record.kept.path.read_bytes().split(b"\n")
    record.kept.path.write_bytes(b"\n".join([one, junk, two, b""]))
    for read in (record.entries, lambda: record.gates(NAME)):
        with pytest.raises(UserError) as told:
            read()
        assert str(told.value).startswith(
            f"{record.kept.path}:2: is no entry of the promotion record; put the file back"
        )
    record.kept.path.write_bytes(b"\n".join([one, junk, b""]))
    before = record.kept.path.read_bytes()
    with pytest.raises(UserError, match=r"promotions\.jsonl:2: is no entry"):
        added(record, "3")
    assert record.kept.path.read_bytes() == before


def test_a_record_that_is_a_folder_is_told(record: PromotionRecord) -> None:
    record.kept.path.mkdir(parents=True)
    with pytest.raises(UserError, match="cannot be read"):
        record.entries()


def test_several_processes_write_one_chain(anywhere: Workspace, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from ontopic.registry.promotion_record import PromotionRecord\n"
        "from ontopic.state.workspace import Workspace\n"
        "record = PromotionRecord.of(Workspace(root=Path(sys.argv[1])))\n"
        "for i in range(15): record.add('gate', 'm', version=str(i), by=sys.argv[2], why='w' * 5000, facts={})\n"
    )
    # Machines that share the state have each a folder of their own.
    alone = anywhere.state_url is None
    roots = {who: anywhere.root if alone else tmp_path / who for who in ("ann", "bob", "eve")}
    command = [sys.executable, "-c", code]
    started = [subprocess.Popen([*command, str(root), who], cwd=ROOT) for who, root in roots.items()]
    assert [process.wait() for process in started] == [0, 0, 0]
    assert alone or not any((root / "promotions.jsonl").exists() for root in roots.values())
    record = PromotionRecord.of(anywhere)
    entries = record.entries()
    assert [entry.number for entry in entries] == list(range(1, 46))
    assert [entry.previous for entry in entries] == [FIRST, *(entry.sha256 for entry in entries[:-1])]
    for who in ("ann", "bob", "eve"):
        assert [entry.version for entry in entries if entry.by == who] == [str(i) for i in range(15)]
