"""Lengths of time as people write them."""

from __future__ import annotations

import re
from datetime import timedelta

from ontopic.errors import UserError

_DURATION = re.compile("([0-9]{1,5})([dhms])")
LONGEST = timedelta(days=99_999)
"""What ``duration`` can say: times so far before or after the present exist."""
_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def duration(text: str) -> timedelta:
    """The length of time that ``90d`` (days), ``12h`` (hours), ``15m`` (minutes) or ``30s`` (seconds) says.

    Raises:
        UserError: it says no length of time.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise UserError(
            f"{text[:80]!r} is not a length of time; give days, hours, minutes or seconds, such as 90d, 12h or 15m"
        )
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def in_words(length: timedelta) -> str:
    """A length of time of whole seconds as ``duration`` reads it, in the largest unit that says it."""
    seconds = round(length.total_seconds())
    sizes = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
    unit = next(unit for unit, size in sizes.items() if seconds % size == 0)
    return f"{seconds // sizes[unit]}{unit}"
