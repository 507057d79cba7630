"""Tables in text: the delimiter is found by the header, whatever program wrote them."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ontopic.data.cells import plain_name, table_cells
from ontopic.data.text_file import encoding_of, open_text
from ontopic.errors import UserError

_DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
_SEP = re.compile(r'"?sep=([^"\r\n])"?\s*', re.I)  # Excel's own line before the header
_HEADER_LINES, _HEADER_CHARACTERS = 20, 100_000


@dataclass(frozen=True)
class _Header:
    """A table's first row.

    Attributes:
        names: of the columns, empty where one has none.
        skip: how many lines stand before it.
    """

    names: list[str]
    delimiter: str
    skip: int


def csv_rows(
    path: Path, *, fields: frozenset[str], required: frozenset[str]
) -> Iterator[tuple[int, dict[str, Any] | UserError]]:
    """Each row with the line that it begins on; one that does not fit the header comes as the error it is.

    Args:
        fields: the names of the schema.
        required: those of them that a row must have.

    Raises:
        UserError: the file as a whole cannot be read, or its header lacks what is required.
    """
    encoding = encoding_of(path)
    line = 1
    try:
        with open_text(path, encoding) as file:
            header = _header(path, _start(file), fields=fields, required=required)
        with open_text(path, encoding) as file:
            for _ in range(header.skip):
                file.readline()
            reader = csv.reader(file, delimiter=header.delimiter, strict=True)
            next(reader)
            line = header.skip + reader.line_num + 1
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield line, _row(cells, header)
                line = header.skip + reader.line_num + 1
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is damaged {encoding.upper()}; save it anew, as UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{path}:{line}: cannot be read as csv from this row on ({error}); {_QUOTES}") from error


_QUOTES = 'put its texts in double quotes, and write "" for a double quote inside them'


def _start(file: TextIO) -> list[str]:
    """The first lines, without a mark before them."""
    lines, size = [], 0
    for line in file:
        lines.append(line)
        size += len(line)
        if len(lines) == _HEADER_LINES or size > _HEADER_CHARACTERS:
            break
    return lines


def _header(path: Path, lines: list[str], *, fields: frozenset[str], required: frozenset[str]) -> _Header:
    said, skip = None, 0
    while skip < len(lines) and (
        not lines[skip].strip("\ufeff \t\r\n,;|") or (not said and _SEP.fullmatch(lines[skip]))
    ):
        match = _SEP.fullmatch(lines[skip].lstrip("\ufeff"))
        said = match[1] if match else said
        skip += 1
    if skip == len(lines):
        raise UserError(f"{path}: holds no usable row; give at least one with the fields {', '.join(sorted(required))}")
    tried = [_Header(_first_row(lines[skip:], each), each, skip) for each in ([said] if said else _DELIMITERS)]
    header = max(tried, key=lambda each: sum(plain_name(name) in fields for name in each.names))
    names = [plain_name(name) for name in header.names]
    place = f"{path}:{skip + 1}"
    if missing := sorted(required - set(names)):
        seen = ", ".join(repr(name[:40]) for name in header.names[:6]) + (", ..." if len(names) > 6 else "")
        between = "" if said or len(header.names) > 1 else "; between columns a comma, semicolon, tab or bar is taken"
        raise UserError(
            f"{place}: field {missing[0]!r}: field required; the header has {seen}{between}, "
            f"and must name {', '.join(sorted(required))}"
        )
    twice = [name for name, n in Counter(names).items() if n > 1 and name in fields]
    if twice:
        raise UserError(f"{place}: the header has the column {twice[0]!r} twice; keep one of them")
    return header


def _first_row(lines: list[str], delimiter: str) -> list[str]:
    try:
        return [name.strip("\ufeff") for name in next(csv.reader(lines, delimiter=delimiter, strict=True))]
    except csv.Error:
        return []


def _row(cells: list[str], header: _Header) -> dict[str, Any] | UserError:
    names = header.names
    if any(cell.strip() for cell in cells[len(names) :]):
        between = _DELIMITERS.get(header.delimiter, repr(header.delimiter))
        return UserError(
            f"field {names[-1]!r}: the row has {len(cells)} cells, the header {len(names)}; "
            f"put a text that holds {between} in double quotes"
        )
    for place, (name, cell) in enumerate(zip(names, cells, strict=False), start=1):
        # pandas numbers its rows in a first column without a name.
        if not name.strip() and cell.strip() and not (place == 1 and cell.strip().isdecimal()):
            return UserError(f"column {place}: the cell {cell[:40]!r} has no name in the header; name it or empty it")
    return table_cells({name: cell for name, cell in zip(names, cells, strict=False) if name.strip()})
