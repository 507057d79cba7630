"""JSON as programs write it: lines, a list, an object around a list, in every Unicode encoding, packed or not."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from ontopic.data.labelled import LabelledRecord, Question
from ontopic.data.rows import load_rows, with_class_names
from ontopic.errors import UserError

ROWS = [{"question": "is my card blocked?", "in_scope": True}, {"question": "who wrote „Hamlet“?", "in_scope": False}]
QUESTIONS = [Question(question=str(row["question"]), in_scope=bool(row["in_scope"])) for row in ROWS]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def file(folder: Path, content: str | bytes, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def error_of(path: Path, schema: type[Question] | type[LabelledRecord] = Question) -> str:
    with pytest.raises(UserError) as caught:
        load_rows(path, schema)
    return str(caught.value)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.ndjson"])
@pytest.mark.parametrize(
    "content",
    [
        LINES,
        "\n \n" + LINES.replace("\n", "\r\n\r\n"),
        LINES.replace("\n", "\r"),
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        json.dumps(ROWS, indent=2, ensure_ascii=False),
        json.dumps({"data": ROWS}),
        json.dumps({"version": 1, "rows": ROWS}, indent=1),
        "".join(json.dumps(row, indent=2) + "\n" for row in ROWS),
        "".join(json.dumps(row) for row in ROWS),
    ],
)
def test_rows_are_read_from_lines_and_documents(tmp_path: Path, name: str, content: str) -> None:
    assert load_rows(file(tmp_path, content, name), Question).rows == QUESTIONS


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("content", [LINES, json.dumps(ROWS, indent=1)])
def test_every_unicode_encoding_is_read(tmp_path: Path, encoding: str, content: str) -> None:
    assert load_rows(file(tmp_path, content.encode(encoding)), Question).rows == QUESTIONS


def test_packed_lines_are_read(tmp_path: Path) -> None:
    assert load_rows(file(tmp_path, gzip.compress(LINES.encode()), "rows.jsonl.gz"), Question).rows == QUESTIONS


def test_one_object_is_one_row(tmp_path: Path) -> None:
    for content in (json.dumps(ROWS[0]), json.dumps(ROWS[0], indent=3), json.dumps([ROWS[0]])):
        assert load_rows(file(tmp_path, content), Question).rows == QUESTIONS[:1]


@pytest.mark.parametrize("value", [1, 0, 1.0, 0.0, "yes", "No", "TRUE", "falsch"])
def test_a_scope_is_read_as_in_a_table(tmp_path: Path, value: Any) -> None:
    (row,) = load_rows(file(tmp_path, json.dumps({"Question": "a?", " in_scope ": value})), Question).rows
    assert row.in_scope is (value in (1, "yes", "TRUE"))


def test_an_item_of_a_list_is_named_by_its_line(tmp_path: Path) -> None:
    rows = [ROWS[0], {"question": "a?", "in_scope": None}, 5]
    path = file(tmp_path, json.dumps(rows, indent=2))
    first, second, _ = error_of(path).splitlines()
    assert first.startswith(f"{path}:6: field 'in_scope': input should be a valid boolean")
    assert second == f"{path}:10: the item is not a JSON object"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", ": holds no usable row"),
        ("[]", ": holds no usable row"),
        ('{"data": []}', ": holds no usable row"),
        ('[\n {"question": "a?",\n  "in_scope": tru}\n]', ":3: is neither one JSON document nor an object a line"),
        ('[\n {"question": "a?"}\n {"question": "b?"}\n]', ":3: is neither one JSON document nor an object a line"),
        ('[\n{"question": "a?", "in_scope": true}\n] more', ":3: is neither one JSON document"),
        ('[\n{"question": "a?", "in_scope": true}\n', ":2: is neither one JSON document"),
        ('{"question": "a?"', ":1: the line is not valid JSON"),
        ("question: a?", ":1: the line is not valid JSON"),
        ('{\n "question": "a?",\n "question": "b?"\n}', ": key 'question' stands twice in one object"),
        ("[\n" + "[" * 100_000, ": is not valid JSON (RecursionError)"),
        ("[\n" + "1" * 5000 + "\n]", ": is not valid JSON (ValueError)"),
        ("\0" * 50, ":1: the line is not valid JSON"),
        (b'[\n{"question": "caf\xe9", "in_scope": true}]', ":2: the line is not UTF-8"),
        (LINES.encode("utf-16")[:-1], ": is damaged UTF-16"),
    ],
)
def test_a_document_that_cannot_be_read_is_said_once(tmp_path: Path, content: str | bytes, said: str) -> None:
    path = file(tmp_path, content)
    message = error_of(path)
    assert message.startswith(str(path))
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"custom_id": "1", "response": {"body": {}}, "error": None}, "this looks like OpenAI's batch output"),
        ({"conversations": [{"from": "human", "value": "a?"}]}, "this looks like ShareGPT's shape"),
        ({"id": "1", "traceId": "2", "input": {}, "output": {}}, "this looks like an export of Langfuse"),
        ({"text": "a?", "intent": "card"}, "this looks like a text classification set"),
        ({"query": "a?", "topic": "b"}, "the row has 'query', 'topic'"),
        ({}, "field 'question': field required"),
    ],
)
def test_a_row_of_another_shape_says_what_was_seen(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    path = file(tmp_path, json.dumps(row))
    assert error_of(path, LabelledRecord).startswith(f"{path}:1: field 'question': field required")
    assert said in error_of(path, LabelledRecord)


def test_the_numbers_of_classes_become_their_names() -> None:
    features = datasets.Features({"label": datasets.ClassLabel(names=["fail", "pass"]), "n": datasets.Value("int64")})
    rows = datasets.Dataset.from_dict({"label": [1, 0, None], "n": [1, 0, 5]}, features=features)
    assert [with_class_names(row, rows.features)["label"] for row in rows] == ["pass", "fail", None]
    assert with_class_names(rows[0], rows.features)["n"] == 1
