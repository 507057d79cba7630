"""Which conversations of the traffic are kept for the gate, whoever they come from."""

from __future__ import annotations

import hashlib

from ontopic.data.same_question import opening
from ontopic.records import Record

_ONE_IN = 3


def is_held_out(record: Record) -> bool:
    """Whether a conversation of the traffic is kept for the gate: one in three, by the hash of its opening words, so
    that no turn of it is trained on."""
    return hashlib.sha256(opening(record.request).encode()).digest()[0] % _ONE_IN == 0
