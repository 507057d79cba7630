"""Topics of questions: groups of calibration questions that lie close together in the sentence encoder's space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.cluster import KMeans

from ontopic.models.sentence_encoder import SentenceEncoder

_TOPICS = 12  # of a few hundred questions: enough of each for a chi-squared test
_UNLIKE_SHARE = 0.02  # of the calibration set itself
UNLIKE = "unlike any calibration question"


class Topics:
    """Puts a question into the topic whose centre is nearest, or into ``UNLIKE`` where none is near.

    A question counts as unlike where the calibration question most like it is less like it than 98 % of the
    calibration questions' own nearest neighbours are.

    Args:
        questions: of the calibration set.

    Attributes:
        reference: the topic of each of them.
        names: of the topics, each the question nearest to its centre.
    """

    def __init__(self, questions: Sequence[str], encoder: SentenceEncoder) -> None:
        self._encoder = encoder
        self._vectors = encoder.encode(questions)
        found = KMeans(min(_TOPICS, len(questions)), random_state=0, n_init=4).fit(self._vectors)
        self._centres = found.cluster_centers_
        self.names = [questions[i] for i in np.argmax(self._vectors @ self._centres.T, axis=0)]
        likeness = self._vectors @ self._vectors.T
        np.fill_diagonal(likeness, -1.0)
        self._least_like = float(np.quantile(likeness.max(axis=1), _UNLIKE_SHARE))
        self.reference = self._topics(self._vectors, likeness.max(axis=1))

    def of(self, questions: Sequence[str]) -> list[str]:
        """The topic of each question."""
        if not questions:
            return []
        vectors = self._encoder.encode(questions)
        return self._topics(vectors, (vectors @ self._vectors.T).max(axis=1))

    def _topics(self, vectors: np.ndarray, likeness: np.ndarray) -> list[str]:
        # The squared distance to a centre, but for the vector's own length, which is 1.
        nearest = np.argmin((self._centres**2).sum(axis=1) - 2 * vectors @ self._centres.T, axis=1)
        return [
            self.names[topic] if like >= self._least_like else UNLIKE
            for topic, like in zip(nearest, likeness, strict=True)
        ]
