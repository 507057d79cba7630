"""Labels of a file: kept as if they had been given on the terminal, and held apart by the same halves."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ontopic.data.drawing import drawable
from ontopic.data.given_labels import GivenLabel, Taken, take_labels
from ontopic.data.labels import Draw, LabelStore
from ontopic.data.rows import load_rows
from ontopic.records import Record

RECORDS = [Record(question=f"question {i} on {i * 37} things?", answer=f"answer {i}", id=f"r{i}") for i in range(40)]
MEASURING = {record.id for record in drawable(RECORDS, "random")}


def rows(tmp_path: Path, name: str = "labels.jsonl") -> list[GivenLabel]:
    said = [
        {
            "id": record.id,
            "question": record.question,
            "answer": record.answer,
            "label": ("fail", None, "pass")[i % 3],
            "correction": f"Right {i}." if i % 3 == 0 else "",
            "model_version": 2,
            "asked_at": "2026-03-01T12:00:00",
        }
        for i, record in enumerate(RECORDS)
    ]
    path = tmp_path / name
    if path.suffix == ".csv":
        lines = [",".join(said[0]), *(",".join(f'"{value or ""}"' for value in row.values()) for row in said)]
        path.write_text("\n".join(lines))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in said))
    return load_rows(path, GivenLabel).rows


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.csv"])
@pytest.mark.parametrize("by", ["random", "feedback"])
def test_only_those_of_the_half_are_kept_and_once(tmp_path: Path, by: Draw, name: str) -> None:
    store = LabelStore(tmp_path / "kept.jsonl")
    given = rows(tmp_path, name)
    own = [r for i, r in enumerate(RECORDS) if (r.id in MEASURING) is (by == "random") and i % 3 != 1]
    taken = take_labels(given, store, by=by)
    assert taken == Taken(kept=len(own), unlabelled=13, other_half=27 - len(own))
    kept = store.labels()
    assert {row.record_id for row in kept} == {record.id for record in own}
    assert {row.split for row in kept} == {"calibration" if by == "random" else "train"}
    assert {(row.label, bool(row.correction)) for row in kept} == {("fail", True), ("pass", False)}
    assert {(row.model_version, row.asked_at) for row in kept} == {("2", datetime(2026, 3, 1, 12, tzinfo=UTC))}
    assert take_labels(given, store, by=by) == taken.model_copy(update={"kept": 0, "known": len(own)})
    changed = [row.model_copy(update={"correction": "Another."}) for row in given if row.id == own[0].id]
    assert take_labels(changed, store, by=by).kept == 1
    assert store.labels()[-1].correction == "Another."
