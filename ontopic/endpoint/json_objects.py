"""JSON objects as LLMs write them: amid prose, in fences, with small mistakes that leave nothing unclear.

No library that mends JSON is used: those complete what is cut, and would make a verdict of half a reply.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

CONTRADICTORY = object()
"""The value of a key that an object has twice, with values that differ."""

_MOST_CHARACTERS = 100_000  # of a text that is read at all
_MOST_PYTHON = 20_000  # of one that is read as Python
_MOST_BRACES = 1_000
_STRING_OR_COMMA = re.compile(r'"((?:[^"\\]|\\.)*+)("|\Z)|,(?=\s*[}\]])', re.S)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.S)
_FENCE = re.compile(r"```[ \t]*\w*\s*\n?(.*?)```", re.S)
_CURLY = str.maketrans("“”„‟", '""""')
_NAMES = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class Written:
    """An object in a text.

    Attributes:
        values: by key; keys in lower case, without blanks at their ends.
        place: ``alone`` where the text holds nothing else; ``apart`` in a fence of its own, or last and on lines of its
            own; ``amid`` other text.
    """

    values: dict[str, Any]
    place: Literal["alone", "apart", "amid"]


@dataclass(frozen=True)
class Objects:
    """The objects in a text, and what stands around them."""

    found: list[Written]
    rest: str


def objects_in(text: str) -> Objects:
    """The JSON objects in a text, the outermost of nested ones; none where the text is far too long to be a reply.

    Read are also raw line ends and tabs in strings, needless escapes and trailing commas. Where an object is all of the
    text or of its only fence, it may be written with Python's quotes and words, or with typographic quotes.
    """
    text = text.strip()
    if len(text) > _MOST_CHARACTERS:
        return Objects([], text)
    body = _unfenced(text)
    plain = _STRING_OR_COMMA.sub(_mended, body)
    try:
        return Objects([Written(_decoded(plain), "alone")], "")
    except (ValueError, RecursionError):
        pass
    if (values := _as_python(plain)) is not None:
        return Objects([Written(values, "alone")], plain)
    found = _amid(plain)
    fences = list(_FENCE.finditer(plain))
    if not found.found and len(fences) == 1 and (values := _as_python(fences[0][1].strip())) is not None:
        return Objects([Written(values, "apart")], plain)
    return found


def _unfenced(text: str) -> str:
    fence = _FENCE.fullmatch(text)
    return fence[1].strip() if fence and "```" not in fence[1] else text


def _mended(match: re.Match[str]) -> str:
    """A string without escapes that JSON does not know; nothing for a trailing comma."""
    if match[1] is None:
        return ""
    return f'"{_ESCAPE.sub(lambda e: e[0] if e[1][0] == "u" or e[1] in _ESCAPES else e[1], match[1])}{match[2]}'


_ESCAPES = '"\\/bfnrt'


def _decoded(text: str) -> dict[str, Any]:
    value = _DECODER.decode(text)
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        key = name.strip().lower()
        # By form too: 1 and true are equal in Python.
        same = key not in found or (type(found[key]) is type(value) and found[key] == value)
        found[key] = value if same else CONTRADICTORY
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object, strict=False)


def _amid(text: str) -> Objects:
    found: list[Written] = []
    around, last, tried = [], 0, 0
    start = text.find("{")
    while start != -1:
        if (tried := tried + 1) > _MOST_BRACES:
            return Objects([], text)
        try:
            values, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):  # no JSON, or a number of 5,000 digits
            start = text.find("{", start + 1)
            continue
        found.append(Written(values, _place(text[:start], text[end:])))
        around.append(text[last:start])
        last, start = end, text.find("{", end)
    return Objects(found, "\n".join([*around, text[last:]]))


def _place(before: str, after: str) -> Literal["apart", "amid"]:
    fenced = re.search(r"```[ \t]*\w*\s*\Z", before[-40:]) and after.lstrip().startswith("```")
    last = not after.strip() and (not before.strip() or before.rstrip(" \t").endswith("\n"))
    return "apart" if fenced or last else "amid"


def _as_python(text: str) -> dict[str, Any] | None:
    """An object in Python's quotes, in typographic ones, or in both JSON's and Python's words."""
    if not (text.startswith("{") and text.endswith("}")) or len(text) > _MOST_PYTHON:
        return None
    if '"' not in text:
        text = text.translate(_CURLY)
    try:
        return _decoded(text)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes that Python does not know
            node = ast.parse(text, mode="eval").body
        # A comment would hide what follows it.
        ends = (node.end_lineno, node.end_col_offset) == (text.count("\n") + 1, len(text.split("\n")[-1].encode()))
        value = _value(node) if ends else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return value if isinstance(value, dict) else None


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Dict(keys=keys, values=values):
            names = [key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
            return _object(zip(names, map(_value, values), strict=True))  # ValueError where a key is no text
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case ast.Constant(value=bool() | str() | int() | float() | None as value):
            return value
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
    raise ValueError("not an object's value")
