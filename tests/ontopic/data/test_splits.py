"""Splits that a file leaves out: drawn the same each time, for every kind, and never with near duplicates apart."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ontopic.data.labelled import LabelledRecord, Question, load_questions, load_records
from ontopic.data.same_question import near_duplicates, normalized
from ontopic.data.splits import _drawn

PLACES = ["Rome", "Oslo", "Lima", "Cairo", "Tokyo", "Delhi", "Paris", "Quito", "Perth", "Dakar", "Turin", "Malmo"]
ACTS = ["fly to", "rent a car in", "find a hotel in", "change my booking for", "get a refund for", "see the museums of"]
OTHERS = ["who painted", "how deep is", "why do cats like", "what rhymes with", "how do I cook", "when was the war of"]


def questions(splits: dict[int, str] | None = None) -> list[dict[str, Any]]:
    rows = []
    for i, (place, act) in enumerate((p, a) for p in PLACES for a in (*ACTS, *OTHERS)):
        row: dict[str, Any] = {"question": f"{act} {place} {hash_word(i)}?", "in_scope": act in ACTS}
        rows.append(row | ({"split": splits[i]} if splits and i in splits else {}))
    return rows


def hash_word(i: int) -> str:
    return "".join(chr(97 + (i * k * k + k) % 26) for k in range(3, 12))


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def assert_no_near_duplicates_apart(rows: list[Question] | list[LabelledRecord]) -> None:
    texts = [normalized(row.question) for row in rows]
    for i, j in near_duplicates(texts, texts):
        assert rows[i].split == rows[j].split, (rows[i], rows[j])


def test_each_kind_gets_its_shares_and_every_row_a_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = written(tmp_path / "q.jsonl", questions())
    _drawn.cache_clear()
    rows = load_questions(source)
    for in_scope in (True, False):
        counts = Counter(row.split for row in rows if row.in_scope is in_scope)
        assert counts == {"train": 36, "evaluation": 21, "calibration": 15}  # of a half, 0.3 and 0.2
    assert load_questions(source) == rows
    by_split = [load_questions(source, split=split) for split in ("train", "evaluation", "calibration", "judge")]
    assert sum(map(len, by_split)) == len(rows)
    said = capsys.readouterr().err
    assert said.count("\n") == 1  # once, not at each reading
    assert said.startswith(f"{source}: 144 of 144 rows have no split; drawn, ")
    assert "72 to train, 42 to evaluation, 30 to calibration. Give each row" in said


def test_the_draw_does_not_depend_on_the_order_of_the_rows(tmp_path: Path) -> None:
    rows = load_questions(written(tmp_path / "a.jsonl", questions()))
    turned = load_questions(written(tmp_path / "b.jsonl", questions()[::-1]))
    assert {row.question: row.split for row in rows} == {row.question: row.split for row in turned}


def test_near_duplicates_go_together(tmp_path: Path) -> None:
    rows = questions()
    rows += [{"question": row["question"].upper() + " Please", "in_scope": row["in_scope"]} for row in rows[::3]]
    rows += [{"question": row["question"] + "!", "in_scope": row["in_scope"]} for row in rows[::5]]
    loaded = load_questions(written(tmp_path / "q.jsonl", rows))
    assert_no_near_duplicates_apart(loaded)
    assert min(Counter((row.split, row.in_scope) for row in loaded).values()) >= 10


def test_given_splits_are_kept_and_bind_their_near_duplicates(tmp_path: Path) -> None:
    rows = questions({0: "evaluation", 7: "judge", 13: "calibration"})
    for i in (0, 7, 13):
        rows.append({"question": rows[i]["question"].replace("?", "!!"), "in_scope": rows[i]["in_scope"]})
    loaded = load_questions(written(tmp_path / "q.jsonl", rows))
    assert [loaded[i].split for i in (0, 7, 13)] == ["evaluation", "judge", "calibration"]
    assert [row.split for row in loaded[-3:]] == ["evaluation", "judge", "calibration"]
    assert_no_near_duplicates_apart(loaded)


def test_few_rows_reach_every_split(tmp_path: Path) -> None:
    loaded = load_questions(written(tmp_path / "q.jsonl", questions()[3:9]))  # three of each scope
    assert set(Counter((row.split, row.in_scope) for row in loaded).values()) == {1}


def test_records_fit_the_questions_and_are_never_left_unused(tmp_path: Path) -> None:
    asked = written(tmp_path / "q.jsonl", questions())
    answers = [(row["question"], label) for row in questions() for label in ("pass", "fail")]
    new = [(f"{word} {hash_word(i)} of my trip", "pass") for i, word in enumerate(PLACES)]
    rows = [{"question": question, "answer": "a", "label": label} for question, label in (*answers, *new)]
    loaded = load_records(written(tmp_path / "r.jsonl", rows), questions=asked)
    splits = {question.question: question.split for question in load_questions(asked)}
    assert all(row.split == splits.get(row.question, row.split) for row in loaded)
    assert {row.split for row in loaded[len(answers) :]} <= {"train", "calibration"}
    alone = load_records(str(tmp_path / "r.jsonl"))
    assert {row.split for row in alone} == {"train", "calibration"}


def test_rows_with_splits_are_left_alone_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = questions(dict.fromkeys(range(144), "train"))
    assert {row.split for row in load_questions(written(tmp_path / "q.jsonl", rows))} == {"train"}
    assert capsys.readouterr().err == ""
