"""Data files: every usual format is read, and a wrong row is named by file, line and field."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from ontopic.data.labelled import LabelledRecord, Question, load_questions, load_records
from ontopic.data.rows import load_rows, source_sha256
from ontopic.errors import UserError

ROWS = [
    {"question": "is my card blocked?", "in_scope": True, "intent": "card", "split": "train"},
    {"question": "who wrote Hamlet, the play?", "in_scope": False, "intent": "books", "split": "evaluation"},
]
GOOD = json.dumps(ROWS[0])


def jsonl(folder: Path, *lines: str | bytes) -> Path:
    path = folder / "rows.jsonl"
    path.write_bytes(b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines))
    return path


def csv(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_text(text, encoding="utf-8")
    return path


def error_of(path: Path, schema: type[Question] | type[LabelledRecord] = Question) -> str:
    with pytest.raises(UserError) as caught:
        load_rows(path, schema)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_the_same_rows_come_from_every_format(tmp_path: Path, suffix: str) -> None:
    path, frame = tmp_path / f"rows.{suffix}", pd.DataFrame(ROWS)
    if suffix == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    loaded = load_rows(path, Question)
    assert loaded.rows == [Question(**row) for row in ROWS]
    assert loaded.skipped == 0


def test_unknown_columns_and_blank_lines_do_no_harm(tmp_path: Path) -> None:
    assert len(load_rows(jsonl(tmp_path, GOOD[:-1] + ', "note": 1}', "", "  ", GOOD), Question).rows) == 2


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    assert load_rows(jsonl(tmp_path, b"\xef\xbb\xbf" + GOOD.encode()), Question).rows[0].in_scope
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbfquestion,in_scope\nis it open?,true\n")
    assert load_rows(path, Question).rows == [Question(question="is it open?", in_scope=True)]


def test_a_wrong_field_is_named_with_file_and_line(tmp_path: Path) -> None:
    path = jsonl(tmp_path, GOOD, "", '{"question": "a?", "in_scope": "perhaps"}')
    message = error_of(path)
    assert message.splitlines() == [
        f"{path}:3: field 'in_scope': input should be a valid boolean (true or false, yes or no, 1 or 0), "
        "got 'perhaps'",
        "mend these rows",
    ]
    with pytest.raises(UserError, match=r"mend these rows, or leave them out with --skip-bad$"):
        load_rows(path, Question, skip_bad=False)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"question": "a?"}', "field 'in_scope': field required"),
        ('{"in_scope": true}', "field 'question': field required"),
        ('{"question": " ", "in_scope": true}', "field 'question': value error, must not be blank"),
        ('{"question": "' + "a" * 20_001 + '", "in_scope": true}', "field 'question': string should have at most"),
        ('{"question": "a?", "in_scope": true, "split": "test"}', "field 'split': input should be 'train'"),
        ('{"question": "a?", "in_scope": 2}', "field 'in_scope': input should be a valid boolean"),
        ('{"question": "a?", "in_scope": true, "question": "b?"}', "key 'question' stands twice in one object"),
        ('{"question": "a?", "Question": "b?", "in_scope": true}', "field 'question' is given twice"),
        ('{"question": "\\ud800", "in_scope": true}', "field 'question': input should be a valid string"),
        (b'{"question": "caf\xe9", "in_scope": true}', "the line is not UTF-8"),
        ('["a?", true]', "the line is not a JSON object"),
        ("null", "the line is not a JSON object"),
        ('{"question": "a?"', "the line is not valid JSON"),
        ("[" * 100_000, "the line is not valid JSON"),
        ('{"question": "a?", "in_scope": ' + "1" * 5000 + "}", "the line is not valid JSON"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_each_malformed_line_has_its_own_message(tmp_path: Path, line: str | bytes, said: str) -> None:
    path = jsonl(tmp_path, GOOD, line)
    assert error_of(path).startswith(f"{path}:2: {said}")


def test_a_wrong_label_of_a_record_is_named(tmp_path: Path) -> None:
    path = jsonl(tmp_path, '{"question": "a?", "answer": "b", "label": "good"}')
    assert error_of(path, LabelledRecord).startswith(
        f"{path}:1: field 'label': input should be 'pass' or 'fail', got 'good'"
    )


def test_the_first_three_malformed_rows_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    path = jsonl(tmp_path, *["{}"] * 5)
    *named, last = error_of(path).splitlines()
    assert [line.split(": ")[0] for line in named] == [f"{path}:{number}" for number in (1, 2, 3)]
    assert last == "and 2 more; mend these rows"


def test_malformed_rows_are_left_out_and_counted_on_demand(tmp_path: Path) -> None:
    path = jsonl(tmp_path, "not json", GOOD, b"\xff\xfe", '{"question": "a?", "in_scope": "perhaps"}', GOOD)
    loaded = load_rows(path, Question, skip_bad=True)
    assert len(loaded.rows) == 2
    assert loaded.skipped == 3


@pytest.mark.parametrize("lines", [[], ["{}"]])
def test_no_usable_row_is_an_error_even_where_bad_ones_are_skipped(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(UserError, match=r"rows\.jsonl: holds no usable row.*question, in_scope"):
        load_rows(jsonl(tmp_path, *lines), Question, skip_bad=True)


def test_a_csv_row_is_named_by_its_line_in_the_file(tmp_path: Path) -> None:
    path = csv(tmp_path, 'question,in_scope\n"two\nlines?",true\n\nis it open?,perhaps\n')
    assert error_of(path).startswith(f"{path}:5: field 'in_scope': input should be a valid boolean")


def test_csv_cells_keep_their_text_and_only_the_scope_is_a_boolean(tmp_path: Path) -> None:
    path = csv(tmp_path, "question,answer,label,in_scope\nNA,true,fail,False\n007,,fail,TRUE\n")
    first, second = load_records(str(path))
    assert (first.question, first.answer, first.in_scope) == ("NA", "true", False)
    assert (second.question, second.answer, second.in_scope) == ("007", "", True)


def test_a_csv_row_with_too_few_cells_is_named(tmp_path: Path) -> None:
    path = csv(tmp_path, "question,in_scope\nis it open?\n")
    assert error_of(path).startswith(f"{path}:2: field 'in_scope': field required")


def test_a_table_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR?")
    assert error_of(path).startswith(f"{path}: cannot be read as parquet")


def test_an_unknown_kind_of_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.docx"
    path.write_bytes(b"")
    assert error_of(path) == f"{path}: unknown kind of file '.docx'; give .jsonl, .csv or .parquet"
    assert error_of(tmp_path) == f"{tmp_path}: is a folder; give a file in it"


@pytest.mark.parametrize("name", ["nothing", "a/b.jsonl", "./a/b", "/a/b", "ontopic:banking/nothing"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{name}: no such file"):
        load_rows(name, Question, base=tmp_path)


@pytest.mark.parametrize("name", ["owner/questions", "owner/questions-v1.0", "owner/questions#test"])
def test_a_data_set_that_cannot_be_had_is_a_user_error(name: str) -> None:
    with pytest.raises(UserError, match=f"^{name}: is not a file, and no data set of that id could be had"):
        load_rows(name, Question)


def test_a_file_is_relative_to_the_base_that_is_given(tmp_path: Path) -> None:
    jsonl(tmp_path, GOOD)
    assert load_questions("rows.jsonl", base=tmp_path) == [Question(**ROWS[0])]


def test_the_digest_of_a_source_changes_with_its_content(tmp_path: Path) -> None:
    before = source_sha256(str(jsonl(tmp_path, GOOD)))
    assert source_sha256(str(jsonl(tmp_path, GOOD))) == before
    assert source_sha256(str(jsonl(tmp_path, GOOD, GOOD))) != before
    assert source_sha256("owner/one") != source_sha256("owner/two")
