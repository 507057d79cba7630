"""What every section of a configuration file is, and the times in them."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from ontopic.config.durations import LONGEST, duration, in_words
from ontopic.errors import UserError


def _duration(given: object) -> object:
    try:
        return duration(given) if isinstance(given, str) else given
    except UserError as error:
        raise ValueError(str(error)) from None  # pydantic adds the key


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(in_words, return_type=str),  # else ZenML could not read what it kept of it
    Field(ge=timedelta(0), le=LONGEST),
]


class Section(BaseModel):
    """Keys with their values; the docstring under each is its description in the reference."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
