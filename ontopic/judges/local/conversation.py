"""What the embedded judge reads of a conversation besides its question."""

from __future__ import annotations

from collections.abc import Sequence

from ontopic.data.labelled import Message as LabelledMessage
from ontopic.judges.local.visible_text import visible
from ontopic.records import Message

_TURNS = 4  # the most that it reads: two questions, with what was answered


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
    said = [(m.role, visible(m.content)) for m in history if m.role in ("user", "assistant")]
    return tuple(f"{role}: {text}" for role, text in [turn for turn in said if turn[1].strip()][-_TURNS:])
