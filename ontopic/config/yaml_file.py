"""A YAML file read as a pydantic model, and what is wrong in it said by file and key."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ontopic.errors import UserError

Schema = TypeVar("Schema", bound=BaseModel)


def read_yaml(path: Path, schema: type[Schema]) -> Schema:
    """Read a YAML file as ``schema``.

    Raises:
        UserError: naming the file, the key, and, where a key is unknown, the valid ones.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give an existing YAML file") from error
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: the 13th month, endless numbers
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(
            f"{path}{line}: is not valid YAML ({getattr(error, 'problem', error)}); mend that line"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold keys and values; the valid keys are {_keys(schema)}")
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise UserError(*(_sentence(path, schema, problem=problem) for problem in error.errors())) from None


def _sentence(path: Path, schema: type[BaseModel], *, problem: ErrorDetails) -> str:
    location = [part for part in problem["loc"] if part not in ("local", "openai", "deepeval", "panel")]
    key = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        section = _section(schema, problem["loc"][:-1])
        valid = _keys(section) if section else "in docs/configuration.md"
        return f"{path}: unknown key {key!r}; the valid keys there are {valid}"
    if problem["type"] == "missing":
        return f"{path}: the key {key!r} is missing; add it"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":  # a sentence of ours, that says what was given
        return f"{path}: {key!r} is wrong: {message}"
    got = "" if "notify" in location else f" (got {str(problem['input'])[:60]!r})"  # its URLs hold secrets
    return f"{path}: {key!r} is wrong: {message.lower()}{got}"


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
