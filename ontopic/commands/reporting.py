"""``--json``: what a command reports as one JSON document on standard output, for programs and not for people."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Annotated, Any

import typer
from pydantic import BaseModel

Document = BaseModel | Sequence[BaseModel]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document; whatever else is said goes to standard error.")
]


@contextmanager
def reporting(*, as_json: bool) -> Iterator[Callable[[Document], None]]:
    """What is printed meanwhile goes to standard error where ``as_json``, so that the document stands alone.

    Yields:
        A function that writes the document, and does nothing where none is asked for.
    """
    out = sys.stdout

    def write(document: Document) -> None:
        if as_json:
            out.write(as_text(document) + "\n")

    if not as_json:
        yield write
        return
    with redirect_stdout(sys.stderr):
        yield write


def as_text(document: Document) -> str:
    """Models as JSON in ASCII, which no terminal obeys; what is no finite number is ``null``, as JSON knows none."""
    if isinstance(document, BaseModel):
        value: Any = document.model_dump(mode="json")
    else:
        value = [each.model_dump(mode="json") for each in document]
    return json.dumps(_finite(value), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
