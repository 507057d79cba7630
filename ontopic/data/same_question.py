"""Whether two questions are the same one, in other letters or in nearly the same words."""

from __future__ import annotations

import re
from collections.abc import Sequence


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
    similar = (vectorizer.transform(left) @ vectorizer.transform(right).T).tocoo()
    return [(int(i), int(j)) for i, j, v in zip(similar.row, similar.col, similar.data, strict=True) if v >= threshold]
