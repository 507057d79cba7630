"""Judged answers by the language of their questions: what is unjudged, declined and passed in each."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from ontopic.data.language import language
from ontopic.records import Verdict
from ontopic.statistics.scores import Scores, score

UNSURE = "unsure"
"""The name of what is too short, odd or mixed to tell its language."""


class LanguageScores(BaseModel):
    """The scores of the answers to questions in one language.

    Attributes:
        name: its ISO 639 code, or ``UNSURE``.
        n: how many answers there are, unjudged ones included.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    n: int
    scores: Scores


def language_name(question: str) -> str:
    """The ISO 639 code of the question's language, or ``UNSURE``."""
    return language(question) or UNSURE


def by_language(questions: Sequence[str], verdicts: Sequence[Verdict]) -> list[LanguageScores]:
    """The scores by language, the most frequent first.

    Raises:
        ValueError: questions and verdicts are not equally many.
    """
    found: dict[str, list[Verdict]] = {}
    for question, verdict in zip(questions, verdicts, strict=True):
        found.setdefault(language_name(question), []).append(verdict)
    scored = [LanguageScores(name=name, n=len(of), scores=score(of)) for name, of in found.items()]
    return sorted(scored, key=lambda each: (-each.n, each.name))


def language_metrics(languages: Sequence[LanguageScores]) -> dict[str, float]:
    """For a tracker: of each language its n and the shares that were unjudged and over-refused; no ``nan``."""
    flat: dict[str, float] = {}
    for each in languages:
        flat |= {
            f"language_{each.name}_n": each.n,
            f"language_{each.name}_unjudged": each.scores.unjudged_share.value,
            f"language_{each.name}_over_refusal": each.scores.over_refusal.value,
        }
    return {name: value for name, value in flat.items() if not math.isnan(value)}
