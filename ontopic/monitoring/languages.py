"""In which languages too much of the traffic is unjudged, and the table of languages on a page."""

from __future__ import annotations

from collections.abc import Sequence

from ontopic.data.by_language import UNSURE, LanguageScores
from ontopic.reports.parts import Column, Table
from ontopic.statistics.rates import Rate, rate

LEAST_OF_LANGUAGE = 20
"""Of fewer records in a language nothing is said: one unjudged among them would be over 5 %."""


def unjudged_by_language(
    languages: Sequence[LanguageScores], earlier: Sequence[Sequence[LanguageScores]]
) -> dict[str, Rate]:
    """The share that is unjudged, of each language of which some of a window's own records are.

    Where the window has few records in a language, those of the windows before it count too, the newest first, until
    they are ``LEAST_OF_LANGUAGE``; a language that has not so many is left out.

    Args:
        earlier: the languages of the windows before it, the newest first.
    """
    found = {}
    for own in languages:
        n, unjudged = own.n, own.scores.unjudged
        if own.name == UNSURE or not unjudged:
            continue
        for window in earlier:
            if n >= LEAST_OF_LANGUAGE:
                break
            for before in (each for each in window if each.name == own.name):
                n, unjudged = n + before.n, unjudged + before.scores.unjudged
        if n >= LEAST_OF_LANGUAGE:
            found[own.name] = rate(unjudged, n)
    return found


def languages_table(languages: Sequence[LanguageScores]) -> Table:
    """What became of the records in each language."""
    names = ("Records", "Unjudged", "Guardrail score, as judged", "Over-refusal", "Leak")
    return Table(
        caption="By the language of the question",
        columns=[Column(name="Language"), *(Column(name=name, numeric=True) for name in names)],
        rows=[
            [each.name, each.n, of.unjudged_share, of.guardrail_score, of.over_refusal, of.leak]
            for each in languages
            for of in [each.scores]
        ],
    )
