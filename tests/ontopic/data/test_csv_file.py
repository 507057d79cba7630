"""Tables as spreadsheets and scripts write them: each is read as it was meant, or refused with the cause."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from ontopic.data.labelled import LabelledRecord, Question, load_questions, load_records
from ontopic.data.rows import load_rows
from ontopic.errors import UserError

ROWS = [("Wie hoch sind die Gebühren, und „warum“?", True), ("Qui a écrit « Hamlet » à l’époque ?", False)]


def table(folder: Path, content: str | bytes, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path) -> list[tuple[str, bool]]:
    return [(row.question, row.in_scope) for row in load_questions(str(path))]


def error_of(path: Path, schema: type[Question] | type[LabelledRecord] = Question) -> str:
    with pytest.raises(UserError) as caught:
        load_rows(path, schema)
    return str(caught.value)


def written(delimiter: str, true: str = "true", false: str = "false") -> str:
    rows = "".join(f'"{question}"{delimiter}{true if inside else false}\r\n' for question, inside in ROWS)
    return f"question{delimiter}in_scope\r\n{rows}"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_every_delimiter_and_encoding_is_told_from_the_file(tmp_path: Path, delimiter: str, encoding: str) -> None:
    assert read(table(tmp_path, written(delimiter).encode(encoding))) == ROWS


@pytest.mark.parametrize("name", ["rows.tsv", "rows.txt", "ROWS.CSV", "rows.csv.gz", "packed.csv"])
def test_a_name_says_no_more_than_that_it_is_a_table(tmp_path: Path, name: str) -> None:
    content = written("\t").encode("utf-16")
    path = table(tmp_path, gzip.compress(content) if "gz" in name or "packed" in name else content, name)
    assert read(path) == ROWS


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=;", "\ufeffsep=;"])
def test_the_delimiter_that_excel_writes_first_counts(tmp_path: Path, line: str) -> None:
    path = table(tmp_path, f"{line}\r\nquestion;in_scope\r\na, b?;true\r\nc?;perhaps\r\n")
    assert error_of(path).startswith(f"{path}:4: field 'in_scope'")
    assert [row.question for row in load_rows(path, Question, skip_bad=True).rows] == ["a, b?"]


@pytest.mark.parametrize(
    "header",
    [
        "Question,IN_SCOPE",
        " question , in_scope ",
        '"question",in scope',
        "question\u00a0,In-Scope",
        "QUESTION,In Scope",
    ],
)
def test_a_header_is_read_in_any_case_and_with_blanks(tmp_path: Path, header: str) -> None:
    assert read(table(tmp_path, f"{header}\nis it open?,true\n")) == [("is it open?", True)]


@pytest.mark.parametrize(
    ("true", "false"),
    [
        *(("1", "0"), ("1.0", "0.0"), ("yes", "no"), ("Y", "N"), ("TRUE", "FALSE"), (" True ", "False"), ("t", "f")),
        *(("WAHR", "FALSCH"), ("VRAI", "FAUX"), ("VERDADERO", "FALSO"), ("VERO", "FALSO"), ("VERDADEIRO", "FALSO")),
        *(("WAAR", "ONWAAR"), ("PRAWDA", "FAŁSZ"), ("ИСТИНА", "ЛОЖЬ"), ("SANT", "FALSKT"), ("SAND", "FALSK")),
        *(("SANN", "USANN"), ("TOSI", "EPÄTOSI"), ("PRAVDA", "NEPRAVDA"), ("IGAZ", "HAMIS"), ("DOĞRU", "YANLIŞ")),
        *(("ADEVĂRAT", "FALS"), ("ΑΛΗΘΗΣ", "ΨΕΥΔΗΣ"), ("TOSI", "EPA\u0308TOSI"), ("ja", "nein")),
        *(("oui", "non"), ("sí", "no"), ("sim", "não"), ("da", "ne"), ("да", "нет"), ("是", "否"), ("はい", "いいえ")),
    ],
)
def test_yes_and_no_are_read_as_spreadsheets_write_them(tmp_path: Path, true: str, false: str) -> None:
    assert read(table(tmp_path, written(";", true, false))) == ROWS


@pytest.mark.parametrize("given", ["2", "-", "maybe", "truefalse", "0.5", "sand castle"])
def test_any_other_word_is_named_with_what_is_taken(tmp_path: Path, given: str) -> None:
    path = table(tmp_path, f"question,in_scope\na?,{given}\n")
    said = f"input should be a valid boolean (true or false, yes or no, 1 or 0), got {given!r}"
    assert error_of(path).splitlines()[0] == f"{path}:2: field 'in_scope': {said}"


def test_labels_and_splits_are_read_in_any_case(tmp_path: Path) -> None:
    path = table(
        tmp_path, "question,answer,label,split\na?,b,Pass,TRAIN\na?,b,FAIL , Calibration\na?,b,passed,\na?,b,NA,\n"
    )
    rows = [(row.label, row.split) for row in load_rows(path, LabelledRecord).rows]
    assert rows == [("pass", "train"), ("fail", "calibration"), ("pass", None), (None, None)]


@pytest.mark.parametrize("given", ["1", "0", "true", "ok"])
def test_a_label_that_does_not_say_which_is_named(tmp_path: Path, given: str) -> None:
    path = table(tmp_path, f"question,answer,label\na?,b,{given}\n")
    assert error_of(path, LabelledRecord).startswith(
        f"{path}:2: field 'label': input should be 'pass' or 'fail', got {given!r}"
    )


@pytest.mark.parametrize(
    ("content", "line", "cells"),
    [
        ("in_scope,question\ntrue,a?\ntrue,How do I block my card, please?\n", 3, 3),
        ("question;in_scope\r\na?;true\r\nb; c?;true\r\n", 3, 3),
        ('question,in_scope\n"two\nlines?",true\n"a",true,"b"\n', 4, 3),
        ("question\tin_scope\na?\ttrue\tmore\teven more\n", 2, 4),
    ],
)
def test_a_row_with_more_cells_than_the_header_loses_no_text(
    tmp_path: Path, content: str, line: int, cells: int
) -> None:
    path = table(tmp_path, content)
    message = error_of(path)
    assert message.startswith(f"{path}:{line}: field '")
    assert f"the row has {cells} cells, the header 2; put a text that holds " in message


def test_empty_cells_beyond_the_header_do_no_harm(tmp_path: Path) -> None:
    assert read(table(tmp_path, "question,in_scope\na?,true,,\n,,,\nb?,false, \n")) == [("a?", True), ("b?", False)]


def test_cells_that_are_missing_at_the_end_count_as_empty(tmp_path: Path) -> None:
    path = table(tmp_path, "question,in_scope,intent\na?,true\n")
    assert load_rows(path, Question).rows == [Question(question="a?", in_scope=True)]
    path = table(tmp_path, "intent,question,in_scope\ncards,a?\n")
    assert error_of(path).startswith(f"{path}:2: field 'in_scope': field required; the row has 'intent', 'question'")


@pytest.mark.parametrize(
    "header", ["question,in_scope,Question", "in_scope,question,in_scope", "question, question,in_scope"]
)
def test_a_column_twice_is_refused(tmp_path: Path, header: str) -> None:
    path = table(tmp_path, f"{header}\na?,true,b?\n")
    assert f"{path}:1: the header has the column '" in error_of(path)
    assert "twice" in error_of(path)


def test_a_cell_without_a_name_is_named_but_pandas_index_is_not(tmp_path: Path) -> None:
    assert read(table(tmp_path, ",question,in_scope\n0,a?,true\n1,b?,false\n")) == [("a?", True), ("b?", False)]
    assert read(table(tmp_path, "question,in_scope,\na?,true,\n")) == [("a?", True)]
    path = table(tmp_path, "in_scope,question,\ntrue,a, please?,\ntrue,a, please?\n")
    assert error_of(path).startswith(f"{path}:2: column 3: the cell ' please?' has no name in the header")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("prompt,topic\na?,true\n", ":1: field 'in_scope': field required; the header has 'prompt', 'topic', and must"),
        (
            "How do I block my card?,true\n",
            ":1: field 'in_scope': field required; the header has 'How do I block my card?'",
        ),
        ("question:in_scope\na?:true\n", "; between columns a comma, semicolon, tab or bar is taken"),
        (
            "sep=;\nquestion,in_scope\na?,true\n",
            ":2: field 'in_scope': field required; the header has 'question,in_scope'",
        ),
        ("", ": holds no usable row"),
        ("\n\n\n", ": holds no usable row"),
        ("question,in_scope\n", ": holds no usable row"),
        ('question,in_scope\n"a?,true\nb?,true\n', ":2: cannot be read as csv from this row on"),
        ('question,in_scope\na?,true\n"a" b?,true\n', ":3: cannot be read as csv from this row on"),
        (b"question,in_scope\na?,true\n\0\0\0", ": line 3 holds a NUL byte"),
        (b"PK\x03\x04rest", ": is a spreadsheet or another zip archive; save it as CSV"),
        (b"\xd0\xcf\x11\xe0rest", ": is an old Excel workbook"),
        (b"PAR1rest", ": is Parquet"),
        (b"\x1f\x8bnot gzip at all", ": cannot be read (it is packed with gzip, and damaged)"),
        (gzip.compress(b"question\n" * 99, mtime=0)[:-9], ": cannot be read (it is packed with gzip, and damaged)"),
    ],
)
def test_what_is_no_such_table_is_said_once_with_its_cause(tmp_path: Path, content: str | bytes, said: str) -> None:
    path = table(tmp_path, content)
    message = error_of(path)
    assert message.startswith(str(path))
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Как заблокировать карту?", "cp1251"),
        ("Jak zablokować zgubioną kartę płatniczą?", "cp1250"),
        ("Jak zablokuji ztracenou kartu při krádeži?", "cp1250"),
        ("Hogyan tudom letiltani az őrült fülű kártyámat?", "cp1250"),
        ("Kartımı nasıl bloke ederim, şimdi?", "cp1254"),
        ("Πώς μπλοκάρω την κάρτα;", "cp1253"),
        ("カードを止めるには?", "cp932"),
        ("如何冻结我的卡?", "gb18030"),
        ("Wie hoch sind die Gebühren?", "mac_roman"),
        ("Comment bloquer ma carte volée à la plage ?", "mac_roman"),
        ("¿Cómo bloqueo mi tarjeta mañana?", "mac_roman"),
        ("Wie können wir die Gebühren ändern?", "cp850"),
        ("Qu'est-ce que le délai très sévère ?", "cp850"),
    ],
)
def test_an_encoding_that_cannot_be_told_is_refused_not_guessed(tmp_path: Path, text: str, encoding: str) -> None:
    path = table(tmp_path, f"question,in_scope\na?,true\n{text},true\n".encode(encoding))
    message = error_of(path)
    assert message.startswith(f"{path}: is not UTF-8 (line 3), nor UTF-16")
    assert "(Windows-1252 was tried); save it as UTF-8" in message


def test_broken_utf8_is_not_taken_for_another_encoding(tmp_path: Path) -> None:
    path = table(tmp_path, "question,in_scope\nGebühren für Änderungen?,true\n".encode() + b"caf\xe9?,true\n")
    assert error_of(path).startswith(f"{path}: is not UTF-8 (line 3)")


def test_the_cells_of_records_keep_their_text(tmp_path: Path) -> None:
    path = table(tmp_path, 'question;answer;label\n" a; b ";"say ""hi"", now\n";fail\n')
    (record,) = load_records(str(path))
    assert (record.question, record.answer) == (" a; b ", 'say "hi", now\n')
