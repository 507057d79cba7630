"""Changed copies of values."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from pydantic import BaseModel

Value = TypeVar("Value")


def replace(value: Value, **changes: Any) -> Value:
    """A copy of a pydantic model or a dataclass with other values of these fields."""
    if isinstance(value, BaseModel):
        return value.model_copy(update=changes)
    return dataclasses.replace(value, **changes)  # type: ignore[type-var]
