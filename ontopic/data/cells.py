"""A row's names and values as people and programs write them, as the fields of a schema take them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from ontopic.errors import UserError

# Yes and no, and what spreadsheets write of a logical value in their languages.
_TRUE = """true t yes y 1 1.0 1,0 wahr ja j vrai oui verdadero sí si s vero sì verdadeiro sim waar prawda tak истина да
sant sann sand tosi kyllä pravda igaz igen doğru evet adevărat da cert αληθησ αληθεσ ναι істина так вярно istina
istinito resnično prav tõene jah patiess jā tiesa taip benar egiazkoa satt já tačno 真 是 はい 참 예 đúng"""
_FALSE = """false f no n 0 0.0 0,0 falsch nein faux non falso não nao onwaar nee fałsz falsz nie ложь нет falskt nej
usann nei falsk epätosi ei nepravda ne hamis nem yanlış yanliş hayır fals ψευδησ ψευδεσ οχι хибність хибно ні неистина
грешно laž neistinito neresnično narobe väär aplam nē klaidinga netiesa salah tidak faltsua ósatt netačno 假 否 いいえ
거짓 아니요 sai"""
_ABSENT = ("na", "n/a", "#n/a", "nan", "null", "none")
_SHOWN = 60
# Shapes that others write, by their keys, for who gives such a file.
_SHAPES = (
    ({"custom_id", "response"}, "OpenAI's batch output"),
    ({"custom_id", "method"}, "OpenAI's batch input"),
    ({"conversations"}, "ShareGPT's shape"),
    ({"traceId", "input"}, "an export of Langfuse"),
    ({"input", "output", "name"}, "an export of Langfuse"),
    ({"messages"}, "a chat"),
    ({"info", "data"}, "an MLflow trace"),
    ({"instruction", "output"}, "Alpaca's shape"),
    ({"prompt", "chosen"}, "preference pairs"),
    ({"prompt", "completion"}, "prompts and completions"),
    ({"text"}, "a text classification set"),
)


def plain_name(text: str) -> str:
    """A column's name without regard to case, blanks around it and what joins its words."""
    return "_".join(_plain(text).replace("-", " ").split())


def as_fields(row: Mapping[str, Any], schema: type[BaseModel]) -> dict[str, Any]:
    """A row under the schema's names, with its logical values and its choices as the schema takes them.

    Raises:
        UserError: two of its names are the same field's.
    """
    fields = _fields(schema)
    found: dict[str, Any] = {}
    for name, value in row.items():
        field = name if name in fields else plain_name(name)
        if field not in fields:
            found[name] = value
            continue
        if field in found:
            raise UserError(f"field {field!r} is given twice, the second time as {_shown(name)}; keep one")
        found[field] = _value(value, fields[field], required=schema.model_fields[field].is_required())
    return found


def table_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """A table's row without its empty cells, though a question or an answer may be empty."""
    cells = {}
    for name, value in row.items():
        empty = value is None or (isinstance(value, float) and math.isnan(value))
        if empty or (isinstance(value, str) and not value.strip() and plain_name(name) not in ("question", "answer")):
            continue
        cells[str(name)] = value.item() if hasattr(value, "item") else value
    return cells


def problem_in_words(problem: ErrorDetails, row: Mapping[str, Any], *, schema: type[BaseModel]) -> str:
    """What is wrong with a row: the field, what is taken, and what was given."""
    location = problem["loc"]
    where = ".".join(str(part) for part in location) or "row"
    said = f"field {where!r}: {problem['msg'].lower()}"
    if problem["type"] == "missing":
        return said + _instead(row) if len(location) == 1 else said
    if location and problem["type"] not in ("value_error", "string_too_long"):
        taken = _fields(schema).get(str(location[0]))
        more = " (true or false, yes or no, 1 or 0)" if taken is bool and len(location) == 1 else ""
        said += f"{more}, got {_shown(problem['input'])}"
    return said


def _instead(row: Mapping[str, Any]) -> str:
    for keys, what in _SHAPES:
        if keys <= row.keys():
            return f"; this looks like {what}, which is not read here"
    names = [_shown(name) for name in row][:6]
    return f"; the row has {', '.join(names)}" + (", ..." if len(row) > len(names) else "") if names else ""


def _shown(value: object) -> str:
    if isinstance(value, str | int | float | None):
        text = repr(value if not isinstance(value, str) else value[: _SHOWN + 1])
        return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return "a list" if isinstance(value, list | tuple) else "an object" if isinstance(value, dict) else "another value"


@cache
def _fields(schema: type[BaseModel]) -> dict[str, type[bool] | tuple[str, ...] | None]:
    """For each field: ``bool``, the choices that it takes, or ``None``."""
    return {name: _kind(field.annotation) for name, field in schema.model_fields.items()}


def _kind(annotation: Any) -> type[bool] | tuple[str, ...] | None:
    if annotation is bool:
        return bool
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal and all(isinstance(part, str) for part in parts):
        return parts
    if origin is Annotated:
        return _kind(parts[0])
    if origin in (Union, UnionType):
        kinds = [kind for part in parts if (kind := _kind(part)) is not None]
        return kinds[0] if kinds else None
    return None


def _value(value: Any, kind: type[bool] | tuple[str, ...] | None, *, required: bool) -> Any:
    """A value as the field takes it, or as it is."""
    if kind is None or value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        word = _plain(value)
        if word in _ABSENT and not required:
            return None
        if kind is bool:
            return _words().get(word, value)
        return next((each for each in kind if word in (each, f"{each}ed")), value) if isinstance(kind, tuple) else value
    return bool(value) if kind is bool and isinstance(value, int | float) and value in (0, 1) else value


@cache
def _words() -> dict[str, bool]:
    return dict.fromkeys(map(_plain, _TRUE.split()), True) | dict.fromkeys(map(_plain, _FALSE.split()), False)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip("\ufeff\u200b\xa0 \t\r\n").casefold()
