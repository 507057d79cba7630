"""JSON of rows: one a line, or one document that holds them, a list or an object around a list."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ontopic.data.text_file import open_bytes, open_text, unicode_encoding
from ontopic.errors import UserError

Numbered = Iterator[tuple[int, "dict[str, Any] | UserError"]]
_AROUND = ("data", "rows", "records", "questions", "examples", "items", "instances", "results")
_BLANK = re.compile(r"[ \t\r\n\ufeff]*")
_NOT_AN_OBJECT = "the line is not a JSON object"


class _TwiceError(ValueError):
    """A key stands twice in one object."""


def json_rows(path: Path, fields: frozenset[str]) -> Numbered:
    """Each row with the line that it begins on; what is no JSON object comes as the error it is.

    Args:
        fields: of the schema; an object that has one of them is a row, not something around rows.

    Raises:
        UserError: the file as a whole cannot be read.
    """
    lines = (line for _, line in _lines(path))
    first, second = next(lines, b""), next(lines, b"")
    del lines
    value, opens = _value(first), first.strip(b"\xef\xbb\xbf \t\r\n") in (b"[", b"{")
    if second and not opens and (not isinstance(value, UserError) or isinstance(_value(second), dict)):
        yield from ((number, _row(line)) for number, line in _lines(path))
        return
    if not second and isinstance(value, dict) and not _around(value, fields):
        yield from ((number, _row(line)) for number, line in _lines(path))
        return
    yield from _document(path, fields, one_line=not second)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, in UTF-8."""
    encoding = unicode_encoding(path)
    if encoding.startswith("utf-8"):
        with open_bytes(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip(b"\xef\xbb\xbf \t\r\n"):
                    yield number, line
        return
    with open_text(path, encoding) as text:
        try:
            for number, words in enumerate(text, start=1):
                if words.strip():
                    yield number, words.encode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: is damaged {encoding.upper()}; save it anew, as UTF-8") from error


def _value(line: bytes) -> object:
    """A line's value, or why it has none."""
    try:
        return json.loads(line.decode("utf-8-sig"), object_pairs_hook=_object)
    except UnicodeDecodeError:
        return UserError("the line is not UTF-8")
    except _TwiceError as error:
        return UserError(str(error))
    except (ValueError, RecursionError):  # a number of 5,000 digits is a plain ValueError
        return UserError("the line is not valid JSON")


def _row(line: bytes) -> dict[str, Any] | UserError:
    value = _value(line)
    return value if isinstance(value, dict | UserError) else UserError(_NOT_AN_OBJECT)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _TwiceError(f"key {twice[:60]!r} stands twice in one object; keep one")
    return found


def _document(path: Path, fields: frozenset[str], *, one_line: bool) -> Numbered:
    content = b"".join(line if line.endswith(b"\n") else line + b"\n" for line in _all_lines(path))
    try:
        text = content.decode("utf-8-sig").rstrip()
        values = list(_values(text, json.JSONDecoder(object_pairs_hook=_object)))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: the line is not UTF-8; save the file as UTF-8") from error
    except _TwiceError as error:
        raise UserError(f"{path}: {error}") from error
    except json.JSONDecodeError as error:
        if one_line:
            raise UserError(f"{path}:{error.lineno}: the line is not valid JSON ({error}); mend it") from error
        raise UserError(
            f"{path}:{error.lineno}: is neither one JSON document nor an object a line ({error}); mend that line"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not valid JSON ({type(error).__name__}); mend it") from error
    if len(values) == 1 and isinstance(values[0][1], dict) and (key := _around(values[0][1], fields)):
        values = [(values[0][0], item) for item in values[0][1][key]]
    for line, value in values:
        yield line, value if isinstance(value, dict) else UserError("the item is not a JSON object")


def _all_lines(path: Path) -> Iterator[bytes]:
    last = 0
    for number, line in _lines(path):
        yield from [b"\n"] * (number - last - 1)  # so that lines keep their numbers
        yield line
        last = number


def _values(text: str, decoder: json.JSONDecoder) -> Iterator[tuple[int, Any]]:
    """The items of the list that a text is, or else the values that stand in it one after the other."""

    def at(position: int) -> int:
        return _BLANK.match(text, position).end()  # type: ignore[union-attr]

    position, counted, line = at(0), 0, 1
    inside = text.startswith("[", position)
    if inside:
        position = at(position + 1)
    while position < len(text) and not (inside and text[position] == "]"):
        line, counted = line + text.count("\n", counted, position), position
        value, position = decoder.raw_decode(text, position)
        yield line, value
        position = at(position)
        if inside and text.startswith(",", position):
            position = at(position + 1)
        elif inside and not text.startswith("]", position):
            raise json.JSONDecodeError("Expecting ',' delimiter", text, position)
    if inside and at(position + 1) < len(text):
        raise json.JSONDecodeError("Extra data", text, at(position + 1))


def _around(value: dict[str, Any], fields: frozenset[str]) -> str | None:
    """The key of the rows that an object stands around; ``None`` where it is a row."""
    if value.keys() & fields:
        return None
    lists = [key for key in _AROUND if isinstance(value.get(key), list)]
    return lists[0] if len(lists) == 1 else None
