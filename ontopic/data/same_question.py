"""Whether two questions are the same one: the same words after the same conversation, or nearly the same words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_AT_ONCE = 512  # rows of the matrix of similarities, most of which are not 0
_GREETING = 2  # words or fewer say nothing of what a conversation is about


def normalized(text: str) -> str:
    """Lower case, words only: what makes two questions the same question."""
    return " ".join(re.findall(r"\w+", text.lower()))


def identity(request: Sequence[Mapping[str, str]]) -> str:
    """What makes two questions the same one: the words of the whole conversation, of a lone question its own.

    "And how long does that take?" is one question after a transfer, and another one after a cake.

    Args:
        request: messages, as ``Record.request`` and ``Question.messages`` give them.
    """
    return "\n".join(normalized(message["content"]) or message["content"] for message in request)


def spoken(request: Sequence[Mapping[str, str]]) -> str:
    """As ``identity``, of what user and assistant say: a system prompt may be the same in all conversations, or hold
    the day and the customer, and tells no two questions apart."""
    return identity([message for message in request if message["role"] in ("user", "assistant")])


def opening(request: Sequence[Mapping[str, str]]) -> str:
    """The words by which all turns of a conversation go to the same side of a split: what its user says first.

    A greeting of one or two words is passed over where more follows.
    """
    said = [identity([message]) for message in request if message["role"] == "user"]
    return next((text for text in said if len(text.split()) > _GREETING), said[0] if said else "")


def near_duplicates(left: Sequence[str], right: Sequence[str], *, threshold: float = 0.8) -> list[tuple[int, int]]:
    """Pairs (index in ``left``, index in ``right``) of texts that say nearly the same in nearly the same letters.

    Two texts are near duplicates where the cosine similarity of their character 3- to 5-gram TF-IDF vectors is at least
    ``threshold``.
    """
    if not left or not right:
        return []
    from sklearn.feature_extraction.text import TfidfVectorizer  # seconds to import, and most need ``normalized`` alone

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    vectorizer.fit([*left, *right])
    ours, theirs = vectorizer.transform(left), vectorizer.transform(right).T.tocsr()
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(left), _AT_ONCE):
        similar = (ours[start : start + _AT_ONCE] @ theirs).tocoo()
        near = similar.data >= threshold
        pairs += zip((similar.row[near] + start).tolist(), similar.col[near].tolist(), strict=True)
    return pairs
