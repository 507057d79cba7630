"""Answers that repeat themselves, as small models' do."""

from __future__ import annotations

from collections import Counter


def repeats_itself(answer: str) -> bool:
    """Whether four words in a row occur three times, or two words three times in a row."""
    words = answer.lower().replace("'s", " 's").split()
    fours = Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
    twice = any(words[i : i + 2] == words[i + 2 : i + 4] == words[i + 4 : i + 6] for i in range(len(words) - 5))
    return twice or max(fours.values(), default=0) >= 3
