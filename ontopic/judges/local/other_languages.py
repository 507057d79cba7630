"""How the embedded judge reads German, Spanish and French: support vector machines on a multilingual encoder.

They learn the judge's four parts from all of the policy's texts. The encoder puts what means the same in two languages
at nearly the same place, so a policy with English texts alone teaches them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC

from ontopic.config.policy import Policy
from ontopic.data.language import language
from ontopic.data.same_question import normalized
from ontopic.models.multilingual_encoder import load_multilingual_encoder

READ = ("de", "es", "fr")
"""The languages in which it was measured; others go unjudged."""
_FOLDS = 5
_GAMMA, _C = 1.0, 4.0
_MOST_ENGLISH = 1000  # of a part; more take the machines long, and teach them little
_DECLINES, _SUBJECT, _INVENTS = 1, 2, 3

Floats = NDArray[np.float32]
Known = tuple[bool | None, bool | None, bool | None, bool | None]


@dataclass(frozen=True)
class OtherLanguages:
    """What ``train_other_languages`` learns.

    Attributes:
        centre: the mean of the vectors that it learned from, of shape (512,).
        parts: a machine for each of the four parts; ``None`` where the policy's texts cannot teach it.
        answered: the policy's languages.
        refusals: its sentences that decline, in words only.
    """

    centre: Floats
    parts: tuple[CalibratedClassifierCV | None, ...]
    answered: tuple[str, ...]
    refusals: frozenset[str]

    def reads(self, text: str) -> bool:
        """Whether something can be said of the text, whatever its language is: a refusal of the policy's is known."""
        return language(text) in READ or self._refuses(text)

    def is_out_of_scope(self, question: str) -> bool:
        """Whether the question is in a language that the policy does not answer in."""
        return bool(self.answered) and language(question) not in ("", *self.answered)

    def correct(
        self, inside: Floats, of_answers: Sequence[Floats], *, questions: Sequence[str], answers: Sequence[str]
    ) -> tuple[Floats, list[Floats]]:
        """The English judge's probabilities with this one's in place of those of the texts that it reads.

        Args:
            inside: that the questions are in scope.
            of_answers: of the three other parts, each of shape (answers,).
        """
        inside, found = inside.copy(), [part.copy() for part in of_answers]
        asked = [i for i, text in enumerate(questions) if language(text) in READ]
        if asked and self.parts[0] is not None:
            inside[asked] = self._part(0, self._vectors([questions[i] for i in asked]))
        inside[[i for i, text in enumerate(questions) if self.is_out_of_scope(text)]] = 0.0
        said = [i for i, text in enumerate(answers) if language(text) in READ]
        if said:
            vectors = self._vectors([answers[i] for i in said])
            for part, values in enumerate(found, start=1):
                values[said] = self._part(part, vectors)
        refused = [i for i, text in enumerate(answers) if self._refuses(text)]
        for values, certain in zip(found, (1.0, 0.0, 0.0), strict=True):
            values[refused] = certain
        return inside, found

    def _refuses(self, text: str) -> bool:
        return normalized(text) in self.refusals

    def _vectors(self, texts: Sequence[str]) -> Floats:
        return _centred(load_multilingual_encoder().encode(texts), self.centre)

    def _part(self, part: int, vectors: Floats) -> Floats:
        machine = self.parts[part]
        return np.zeros(len(vectors), np.float32) if machine is None else probability(machine, vectors)


def train_other_languages(policy: Policy, examples: Sequence[tuple[str, Known]]) -> OtherLanguages:
    """Learn from texts in any language, and what is known of each for the four parts."""
    examples = [*examples, *((refusal, (None, True, None, None)) for refusal in policy.all_refusals)]
    languages = [language(text) for text, _ in examples]
    kept: set[int] = set()
    of_part: list[list[int]] = []
    for part in range(4):
        known = [i for i, (_, labels) in enumerate(examples) if labels[part] is not None]
        english = [i for i in known if languages[i] not in READ]
        other = [i for i in known if languages[i] in READ]
        of_part.append([*english[:: -(-len(english) // _MOST_ENGLISH) or 1], *other])
        kept.update(of_part[-1])
    rows = sorted(kept)
    vectors = load_multilingual_encoder().encode([examples[i][0] for i in rows])
    centre = vectors.mean(axis=0)
    place, centred = {row: at for at, row in enumerate(rows)}, _centred(vectors, centre)
    parts: list[CalibratedClassifierCV | None] = []
    for part, chosen in enumerate(of_part):
        labels = np.array([bool(examples[i][1][part]) for i in chosen], dtype=bool)
        if min(labels.sum(), (~labels).sum()) < _FOLDS:
            parts.append(None)
            continue
        # Most answers make nothing up, so to be suspected of it takes more than to be acquitted.
        weight = None if part == _INVENTS else "balanced"
        machine = SVC(C=_C, gamma=_GAMMA, class_weight=weight)
        classifier = CalibratedClassifierCV(machine, method="sigmoid", cv=_FOLDS, ensemble=False)
        parts.append(classifier.fit(centred[[place[i] for i in chosen]], labels))
    refusals = frozenset(map(normalized, policy.all_refusals))
    return OtherLanguages(centre, tuple(parts), tuple(policy.languages), refusals)


def _centred(vectors: Floats, centre: Floats) -> Floats:
    moved = vectors - centre
    return np.asarray(moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-6), dtype=np.float32)


def probability(classifier: CalibratedClassifierCV, vectors: Floats) -> Floats:
    """What ``predict_proba`` gives for the second class, by matrix products: libsvm goes vector by vector."""
    (calibrated,) = classifier.calibrated_classifiers_
    machine = calibrated.estimator
    near = rbf_kernel(vectors, machine.support_vectors_, gamma=machine.gamma)
    margin = near @ machine.dual_coef_[0] + machine.intercept_[0]
    (platt,) = calibrated.calibrators
    return np.asarray(platt.predict(margin), dtype=np.float32)
