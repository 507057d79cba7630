"""Files without what is to be erased: tables lose the rows that hold it, logs their lines, other places the text.

A row is an element of a list in JSON, a row of a table as pandas splits it, a line of JSON, a row of Parquet, or what a
page marks as one: a table's, or a question with its answers. A message is no row: it goes with the row that it is a
part of. A row that bears the id of another record stays, and loses the text alone.
"""

from __future__ import annotations

import gzip
import json
import re
import sqlite3
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ontopic.state.erasing import Erasing
from ontopic.state.whole_file import whole_file

UNREADABLE = (OSError, sqlite3.Error, ValueError, EOFError, zlib.error, zipfile.BadZipFile)
"""What a file raises that is broken, or may not be read or written."""
ERASED = "[erased]"
"""What stands in the place of a text where its row must stay."""
_IDS = ("id", "record_id")
_SPLIT = ("columns", "data")  # a table in JSON as pandas splits it, which is how MLflow logs one
_ABREAST = ("records", "verdicts", "questions")  # lists of one object whose elements belong together by their place
BINARY = (".safetensors", ".pt", ".pth", ".gguf", ".bin", ".joblib", ".xml", ".lock", ".pid", ".sock")
"""The suffixes of files that hold nobody's text."""
_BESIDE = ("-wal", "-shm", "-journal")  # of a database, which sees to them
_PAGE_DATA = re.compile(r"^(\s*var \w+ = )([\[{].*)(;\s*)$", re.MULTILINE)
_PROGRAM = re.compile(r"<(script|style)\b.*?</\1>", re.DOTALL | re.IGNORECASE)
_PAGE_ROW = re.compile(r"<!--row-->.*?<!--/row-->\n?", re.DOTALL)
_SAID = re.compile(r'dir="auto">([^<]*)<')  # what is anybody's text on a page of ours, each on its own


def erase_from_file(path: Path, erasing: Erasing) -> bool:
    """Take what is to be erased out of a file, in whatever format; whether there was any.

    A page that still holds some afterwards, which has another form than ours, is deleted, and so is an archive.

    Raises:
        OSError: it can't be read or written.
        sqlite3.Error: it is a database that can't be written.
    """
    suffixes = path.suffixes
    if path.suffix in BINARY or path.name.endswith(_BESIDE) or path == erasing.path:
        return False
    with path.open("rb") as file:
        begin = file.read(16)
    if begin.startswith(b"SQLite format 3"):
        return erase_from_database(path, erasing)
    if begin.startswith(b"PAR1"):
        return _parquet(path, erasing)
    if begin.startswith(b"PK\x03\x04"):
        return _archive(path, erasing)
    packed = begin.startswith(b"\x1f\x8b")
    content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    if b"\0" in content[:8192]:
        return False
    text = content.decode("utf-8", "surrogateescape")
    form = next((each for each in reversed(suffixes) if each != ".gz"), "")
    written = _of_form(form)(text, erasing)
    if written == text:
        return False
    if written is None:
        path.unlink()
        return True
    content = written.encode("utf-8", "surrogateescape")
    if form == ".log":  # which a process may go on writing to
        path.write_bytes(content)
        return True
    with whole_file(path) as part:
        part.write_bytes(gzip.compress(content) if packed else content)
    return True


def left_of(name: str, content: bytes, *, erasing: Erasing) -> bytes | None:
    """What ``erase_from_file`` leaves of a file; ``None`` where it deletes it. Nothing is written but a passing copy.

    Args:
        name: the file's, by whose suffix its format is known.
    """
    if Path(name).suffix in BINARY:
        return content
    with tempfile.TemporaryDirectory(prefix="ontopic-") as folder:  # its owner's alone
        copy = Path(folder) / name
        copy.write_bytes(content)
        if not erase_from_file(copy, erasing):
            return content
        return copy.read_bytes() if copy.exists() else None


def _of_form(suffix: str) -> Callable[[str, Erasing], str | None]:
    if suffix in (".jsonl", ".ndjson"):
        return erase_from_lines
    return {".json": _json, ".html": _page}.get(suffix, erase_from_lines)


def erase_from_value(value: Any, erasing: Erasing) -> Any:
    """A JSON value without what is to be erased; itself where it holds none."""
    written, row = _value(value, erasing)
    return ERASED if row and isinstance(written, str) else written


def holds(value: Any, erasing: Erasing) -> bool:
    """Whether there is some of it in a JSON value."""
    written, row = _value(value, erasing)
    return row or written != value


def erase_from_lines(text: str, erasing: Erasing) -> str:
    """A text without the lines that hold some: those of JSON by their values, others by their words."""
    return "\n".join(left for line in text.split("\n") if (left := _left(line, erasing)) or not line)


def gone_lines(text: str, erasing: Erasing) -> set[int]:
    """Which lines that would be, by their number from 0."""
    return {i for i, line in enumerate(text.split("\n")) if line and not _left(line, erasing)}


def _left(line: str, erasing: Erasing) -> str:
    """A line as it stays; empty where it goes."""
    if inner := _inner(line, erasing):
        value, written, row = inner
        return "" if row else line if written == value else json.dumps(written)
    return "" if erasing.has_text(line) else line


def _inner(text: str, erasing: Erasing) -> tuple[Any, Any, bool] | None:
    """Of JSON in a text: what it holds, what is left of that, and whether it goes as a whole; ``None`` where it is
    none, or is itself what goes."""
    if not text.startswith(("{", "[")) or erasing.is_text(text):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value, *_value(value, erasing)


def _json(text: str, erasing: Erasing) -> str | None:
    try:
        value = json.loads(text)
    except ValueError:
        return erase_from_lines(text, erasing)
    written = erase_from_value(value, erasing)
    if written == value:
        return text
    return json.dumps(written, ensure_ascii=text.isascii(), indent=_indent(text))


def _indent(text: str) -> int | None:
    found = re.match(r"[\[{]\n( +)\S", text)
    return len(found[1]) if found else None


def _page(text: str, erasing: Erasing) -> str | None:
    """A page of ours without the rows that hold some, or one of Evidently's, whose data are values of JSON on a line
    each; ``None`` where some is left elsewhere."""

    def data(line: re.Match[str]) -> str:
        try:
            value = json.loads(line[2])
        except ValueError:
            return line[0]
        written = erase_from_value(value, erasing)
        if written == value:
            return line[0]
        return line[1] + json.dumps(written).replace("<", "\\u003c") + line[3]

    written = _PAGE_DATA.sub(data, text)
    written = _PAGE_ROW.sub(lambda row: "" if _shows(row[0], erasing) else row[0], written)
    return None if _shows(_PROGRAM.sub("", written), erasing) else written


def _shows(part: str, erasing: Erasing) -> bool:
    return any(map(erasing.has_text, _SAID.findall(part))) or any(map(erasing.has_text, part.split("\n")))


def erase_from_database(path: Path, erasing: Erasing, *, known: Sequence[str] = ()) -> bool:
    """Take it out of all texts of an SQLite file, and leave nothing in its free pages; whether there was any.

    Args:
        known: tables that are left alone, as their rows go by the records' ids.
    """
    with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as database:
        changed = False
        for table, columns in _columns(database, known):
            rows = f"SELECT rowid, {', '.join(columns)} FROM {table} WHERE rowid > ? ORDER BY rowid LIMIT 500"  # noqa: S608
            last = -(1 << 63)
            while page := database.execute(rows, (last,)).fetchall():
                last = page[-1][0]
                for rowid, *values in page:
                    for column, value in zip(columns, values, strict=True):
                        if (written := erase_from_cell(value, erasing)) != value:
                            change = f"UPDATE {table} SET {column} = ? WHERE rowid = ?"  # noqa: S608
                            database.execute("PRAGMA secure_delete=ON")
                            database.execute(change, (written, rowid))
                            changed = True
        if changed:
            scrub(database)
    return changed


def scrub(database: sqlite3.Connection) -> None:
    """Write a database anew, so that nothing of what was deleted is left in it or in the log beside it."""
    database.execute("VACUUM")
    checkpoint(database)


def checkpoint(database: sqlite3.Connection) -> None:
    """Empty the log beside a database."""
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _columns(database: sqlite3.Connection, known: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each table that has row ids, with its columns of texts, quoted."""
    found = []
    for name, made in database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall():
        if "WITHOUT ROWID" in (made or "").upper() or name.startswith("sqlite_") or name in known:
            continue
        columns = [f'"{column}"' for _, column, *_ in database.execute(f'PRAGMA table_info("{name}")').fetchall()]
        found.append((f'"{name}"', columns))
    return found


def erase_from_cell(value: Any, erasing: Erasing) -> Any:
    """A column's value without it."""
    if isinstance(value, bytes):
        try:
            text = value.decode()
        except UnicodeDecodeError:
            return value
        written = erase_from_cell(text, erasing)
        return value if written == text else written.encode()
    if not isinstance(value, str) or len(value) < 2:
        return value
    if inner := _inner(value, erasing):
        content, written, row = inner
        return value if written == content and not row else json.dumps(ERASED if row else written)
    return ERASED if erasing.has_text(value) else value


def _parquet(path: Path, erasing: Erasing) -> bool:
    import pyarrow as pa
    from pyarrow import parquet

    changed = False
    with parquet.ParquetFile(path) as file, whole_file(path) as part:
        with parquet.ParquetWriter(part, file.schema_arrow, compression="zstd") as writer:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group).to_pylist()
                kept = _elements(rows, erasing)
                changed = changed or kept != rows
                writer.write_table(pa.Table.from_pylist(kept, file.schema_arrow))
        if not changed:
            part.write_bytes(path.read_bytes())
    return changed


def _archive(path: Path, erasing: Erasing) -> bool:
    """An archive is not written anew, but deleted as a whole."""
    with zipfile.ZipFile(path) as archive:
        held = any(
            (b"\0" not in (content := archive.read(name))[:8192])
            and _of_form(Path(name).suffix)(text := content.decode("utf-8", "surrogateescape"), erasing) != text
            for name in archive.namelist()
        )
    if held:
        path.unlink()
    return held


def _value(value: Any, erasing: Erasing) -> tuple[Any, bool]:
    """What is left of a value, and whether the row that it is in goes."""
    if isinstance(value, str):
        if erasing.has_id(value) or erasing.is_text(value):
            return value, True
        return _packed(value, erasing) if value[:1] in ("{", "[") else (value, erasing.has_text(value))
    if isinstance(value, dict):
        return _object(value, erasing)
    if isinstance(value, list):
        if any(isinstance(each, dict) and "role" in each for each in value):
            left = [_value(each, erasing) for each in value]
            return [each for each, _ in left], any(row for _, row in left)
        if any(isinstance(each, (dict, list)) for each in value):
            return _elements(value, erasing), False
        left = [_value(each, erasing) for each in value]
        return [each for each, row in left if not row], any(row for _, row in left)
    return value, False


def _packed(value: str, erasing: Erasing) -> tuple[Any, bool]:
    """JSON as a text in JSON."""
    try:
        content = json.loads(value)
    except ValueError:
        return value, erasing.has_text(value)
    written, row = _value(content, erasing)
    return (value if written == content else json.dumps(written)), row


def _object(value: dict[str, Any], erasing: Erasing) -> tuple[Any, bool]:
    if _is_split_table(value):
        rows = _elements([dict(zip(value["columns"], row, strict=True)) for row in value["data"]], erasing)
        return value | {"data": [[row.get(column) for column in value["columns"]] for row in rows]}, False
    bears = [each for name in _IDS if isinstance(each := value.get(name), str) and each]
    if any(erasing.has_id(each) for each in bears):
        return value, True
    left, row = {}, False
    written: Any
    gone = _gone_abreast(value, erasing)
    for name, each in value.items():
        if erasing.is_text(name):
            continue
        if name in _ABREAST and isinstance(each, list):
            written, hit = [_bare(e, erasing) for i, e in enumerate(each) if i not in gone], False
        else:
            written, hit = _value(each, erasing)
        if hit and isinstance(each, str):
            written = ERASED
        left[name], row = written, row or hit
    is_of_another = "record_id" in value or {"question", "answer", "id"} <= set(value)
    return left, row and not (bears and is_of_another)


def _is_split_table(value: dict[str, Any]) -> bool:
    """Whether it is a table whose cells are found again by their place: a row that lost one would be another row."""
    columns, data = (value.get(name) for name in _SPLIT)
    return (
        value.keys() == set(_SPLIT)
        and isinstance(columns, list)
        and all(isinstance(column, str) for column in columns)
        and len(set(columns)) == len(columns)
        and isinstance(data, list)
        and all(isinstance(row, list) and len(row) == len(columns) for row in data)
    )


def _bare(value: Any, erasing: Erasing) -> Any:
    """A row that stays, without the texts in it."""
    written, row = _value(value, erasing)
    return ERASED if row and isinstance(written, str) else written


def _gone_abreast(value: dict[str, Any], erasing: Erasing) -> set[int]:
    """Which places go in the lists of an object whose elements belong together."""
    lists = [each for name in _ABREAST if isinstance(each := value.get(name), list)]
    return {i for each in lists for i, e in enumerate(each) if _value(e, erasing)[1]}


def _elements(value: Sequence[Any], erasing: Erasing) -> list[Any]:
    """The rows that stay."""
    left = [_value(each, erasing) for each in value]
    return [each for each, row in left if not row]
