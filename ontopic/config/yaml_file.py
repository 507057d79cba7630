"""A YAML file read as a pydantic model, and what is wrong in it said by file and key."""

from __future__ import annotations

import codecs
import math
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ontopic.errors import UserError

_MOST_BYTES, _MOST_VALUES = 1_000_000, 50_000
_NAMED, _SHOWN = 10, 60

Schema = TypeVar("Schema", bound=BaseModel)


def read_yaml(path: Path, schema: type[Schema]) -> Schema:
    """Read a YAML file as ``schema``.

    Raises:
        UserError: naming the file, the key, and, where a key is unknown, the valid ones.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise UserError(
                f"{path}: is longer than {_MOST_BYTES:,} bytes, so it is no configuration; give a YAML file"
            )
        text = data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: cannot be read, as it is not UTF-8; save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give an existing YAML file") from error
    content = _content(path, text)
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold keys and values; the valid keys are {_keys(schema)}")
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        said = [_sentence(path, schema, problem=problem) for problem in error.errors()]
        more = [f"and {len(said) - _NAMED} more; mend these first"] if len(said) > _NAMED else []
        raise UserError(*said[:_NAMED], *more) from None


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which the last would win in silence, and a NUL, which no path can hold."""

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if "\0" in node.value:
            raise yaml.constructor.ConstructorError(None, None, "a text holds a NUL", node.start_mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"the key {key.value[:_SHOWN]!r} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return node


def _content(path: Path, text: str) -> object:
    """What YAML says."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if _size(node, {}) > _MOST_VALUES:
            raise UserError(
                f"{path}: its aliases make more than {_MOST_VALUES:,} values of it; write out what they stand for"
            )
        return None if node is None else loader.construct_document(node)
    # A ValueError is the 13th month or an endless number; the last four come of tags that do not fit their values.
    except (yaml.YAMLError, ValueError, RecursionError, KeyError, IndexError, AttributeError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        why = " ".join(str(getattr(error, "problem", None) or error or type(error).__name__).split())
        raise UserError(f"{path}{line}: is not valid YAML ({why[:200]}); mend that line") from error
    finally:
        if loader is not None:
            loader.dispose()


def _size(node: yaml.Node | None, known: dict[int, float]) -> float:
    """How many values a node makes, those that aliases repeat counted each time; infinite where it holds itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]


def _sentence(path: Path, schema: type[BaseModel], *, problem: ErrorDetails) -> str:
    location = [part for part in problem["loc"] if part not in ("local", "openai", "deepeval", "panel")]
    key = ".".join(str(part)[:_SHOWN] for part in location)
    if problem["type"] == "extra_forbidden":
        section = _section(schema, problem["loc"][:-1])
        valid = _keys(section) if section else "in docs/reference/configuration.md"
        return f"{path}: unknown key {key!r}; the valid keys there are {valid}"
    if problem["type"] == "missing":
        return f"{path}: the key {key!r} is missing; add it"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":  # a sentence of ours, that says what was given
        return f"{path}: {key!r} is wrong: {message}"
    got = "" if "notify" in location else f" (got {str(problem['input'])[:_SHOWN]!r})"  # its URLs hold secrets
    message = message.lower().replace("datetime.timedelta", "").replace("(0)", "0").replace("(days=99999)", "99999d")
    return f"{path}: {key!r} is wrong: {message}{got}"


def _section(schema: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The schema of the section at ``location``, where tags of a union stand among the keys."""
    candidates = [schema]
    for part in location:
        if isinstance(part, int):  # an item of a list: its schema is a candidate already
            continue
        fields = [c.model_fields[part] for c in candidates if part in c.model_fields]
        if fields:
            candidates = _models(fields[0].annotation)
        else:
            kinds = [(c, c.model_fields.get("kind")) for c in candidates]
            candidates = [c for c, kind in kinds if kind and part in get_args(kind.annotation)]
    return candidates[0] if candidates else None


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _keys(schema: type[BaseModel]) -> str:
    return ", ".join(schema.model_fields)
