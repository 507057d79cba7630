"""What the embedded judge reads of a conversation besides its question."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from ontopic.data.labelled import Message as LabelledMessage
from ontopic.judges.local.visible_text import visible
from ontopic.records import Message

_TURNS = 4  # the most that it reads: two questions, with what was answered
_CHARACTERS = 2000  # of a turn, of which a few hundred are read


def turns_before(messages: Sequence[Message | LabelledMessage]) -> tuple[str, ...]:
    """The last turns before the question, as their reader sees them, each with who speaks; the oldest first.

    Args:
        messages: of the whole request, its last message by the user being the question. What is not said by user or
            assistant (system prompt, retrieved text) is no turn.
    """
    asked = max((i for i, message in enumerate(messages) if message.role == "user"), default=0)
    return last_turns(messages[:asked])


def last_turns(history: Sequence[Message | LabelledMessage]) -> tuple[str, ...]:
    """As ``turns_before``, of the messages before a question."""
    said = ((m.role, visible(m.content[:_CHARACTERS])) for m in reversed(history) if m.role in ("user", "assistant"))
    newest = islice(((role, text) for role, text in said if text.strip()), _TURNS)
    return tuple(reversed([f"{role}: {text}" for role, text in newest]))
