"""Topics of questions: groups of calibration questions that lie close together in the sentence encoder's space."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from sklearn.cluster import KMeans

from ontopic.models.sentence_encoder import SentenceEncoder

_TOPICS = 12  # of a few hundred questions: enough of each for a chi-squared test
_UNLIKE_SHARE = 0.02  # of the calibration set itself
UNLIKE = "unlike any calibration question"


class Topics:
    """Puts a question into the topic whose centre is nearest, or into ``UNLIKE`` where it is far from all questions.

    It is far where its cosine similarity to the nearest calibration question is less than that of 98 % of the
    calibration questions to their own nearest neighbours.

    Args:
        questions: of the calibration set.

    Attributes:
        names: of the topics, each the question nearest to its centre.
        id: changes whenever questions may come into other topics.
    """

    def __init__(self, questions: Sequence[str], encoder: SentenceEncoder) -> None:
        self._encoder = encoder
        self._vectors = encoder.encode(questions)  # (questions, dimensions), of length 1
        found = KMeans(min(_TOPICS, len(questions)), random_state=0, n_init=4).fit(self._vectors)
        self._centres = found.cluster_centers_  # (topics, dimensions)
        self.names = [questions[i] for i in np.argmax(self._vectors @ self._centres.T, axis=0)]
        cosines = self._vectors @ self._vectors.T
        np.fill_diagonal(cosines, -1.0)
        self._least_cosine = float(np.quantile(cosines.max(axis=1), _UNLIKE_SHARE))
        self.id = hashlib.sha256("\n".join([*sorted(questions), *self.names]).encode()).hexdigest()[:16]

    def of(self, questions: Sequence[str]) -> list[str]:
        """The topic of each question."""
        if not questions:
            return []
        vectors = self._encoder.encode(questions)
        return self._topics(vectors, (vectors @ self._vectors.T).max(axis=1))

    def _topics(self, vectors: np.ndarray, cosines: np.ndarray) -> list[str]:
        # The squared distance to a centre, but for the vector's own length, which is 1.
        nearest = np.argmin((self._centres**2).sum(axis=1) - 2 * vectors @ self._centres.T, axis=1)
        return [
            self.names[topic] if cosine >= self._least_cosine else UNLIKE
            for topic, cosine in zip(nearest, cosines, strict=True)
        ]
