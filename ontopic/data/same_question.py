"""Whether two questions are the same one, in other letters or in nearly the same words."""

from __future__ import annotations

import re
from collections.abc import Sequence

_AT_ONCE = 512  # rows of the matrix of similarities, most of which are not 0


def normalized(text: str) -> str:
    """Lower case, words only: what makes two questions the same question."""
    return " ".join(re.findall(r"\w+", text.lower()))


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
