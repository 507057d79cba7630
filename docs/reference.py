"""The generated parts of commands.md and configuration.md in docs/reference, which cog writes there (`make docs`)."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ontopic.config.durations import in_words
from ontopic.config.policy import Policy
from ontopic.config.settings import Settings

_WIDTH = 100


def commands() -> str:
    """Every command with what ``--help`` says of it."""
    import run

    parts = []
    for path, command in _walk(typer.main.get_command(run.app), ["python run.py"]):
        with click.Context(command, info_name=path, terminal_width=_WIDTH) as context:
            parts.append(f"### {path}\n```\n{command.get_help(context).strip()}\n```\n")
    return "\n".join(parts)


def _walk(command: click.Command, path: list[str]) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(path), command
    for name, each in sorted(getattr(command, "commands", {}).items()):
        yield from _walk(each, [*path, name])


def settings() -> str:
    """Every key of a configuration file."""
    return _table(Settings)


def policy() -> str:
    """Every key of a policy file."""
    return _table(Policy)


def _table(schema: type[BaseModel]) -> str:
    rows = [f"| {' | '.join(row)} |" for row in _rows(schema, "", listed=set())]
    return "\n".join(["| key | meaning | type | default |", "|---|---|---|---|", *rows]) + "\n"


def _rows(schema: type[BaseModel], prefix: str, *, listed: set[type]) -> Iterator[tuple[str, str, str, str]]:
    """The keys of a section. Those that several sections inherit are listed once, as of ``…``; so is a section."""
    for owner in reversed(schema.__mro__):
        names = [name for name in vars(owner).get("__annotations__", {}) if name in schema.model_fields]
        if owner in listed or not names:
            continue
        listed.add(owner)
        for name in names:
            field = schema.model_fields[name]
            key = f"{prefix}{name}" if owner is schema else f"….{name}"
            meaning = re.sub(r"``", "`", " ".join((field.description or "").split())).replace("|", "\\|")
            yield f"`{key}`", meaning, _type(field.annotation), _default(field)
            for each in _models(field.annotation):
                kind = each.model_fields.get("kind")
                of = f"{key}[{get_args(kind.annotation)[0]}]" if kind else key
                yield from _rows(each, f"{of}[]." if get_origin(field.annotation) is list else f"{of}.", listed=listed)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if _models(annotation):
        return "list" if origin is list else "section"
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"{_type(arguments[1])} by {_type(arguments[0])}"
    if arguments and (origin is Union or "UnionType" in str(origin)):
        return " or ".join(_type(part) for part in arguments if part is not type(None))
    if arguments:  # Annotated
        return _type(arguments[0])
    names = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "timedelta": "duration"}
    return names.get(annotation.__name__, annotation.__name__.lower())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if isinstance(value, BaseModel):
        return "its keys'"
    if isinstance(value, list | dict):
        return f"{len(value)} item{'s' * (len(value) != 1)}" if value else "empty"
    if isinstance(value, timedelta):
        return f"`{in_words(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"
