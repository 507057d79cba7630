"""The page that compares judges which were measured on the same labelled records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ontopic.config.policy import Policy
from ontopic.judges.cards.calibration import Measured
from ontopic.judges.cards.card import SHARES, JudgeCard
from ontopic.judges.cards.page import cost_in_words
from ontopic.reports.measurement import Measurement, write_measurement
from ontopic.reports.parts import Cell, Column, Headline, Link, Table
from ontopic.reports.plots import Forest, ForestRow, Mark

_LONGEST = 30  # characters of an id in a plot


def comparison_report(
    ranked: Sequence[Measured],
    sentences: Sequence[str],
    *,
    policy: Policy,
    source: str,
    out: Path,
    pages: Mapping[str, Path] | None = None,
) -> None:
    """Write the page.

    Args:
        ranked: the best judge first.
        sentences: what the comparison says; the first is the headline.
        source: what the labelled records are, in words.
        out: the HTML file; written whole or not at all, its folder is made.
        pages: of each judge's card, by its id.
    """
    cards = [measured.card for measured in ranked]
    first, *more = sentences or ["Nothing was compared."]
    head, _, why = first.partition(": ")
    order = "the greatest lower bound of accuracy first" if len(cards) > 1 else ""
    found = Measurement(
        kind=f"judges of {policy.name}, compared",
        headline=Headline(
            status="neutral",
            label=f"{len(cards):,} judges" if len(cards) > 1 else "1 judge",
            sentence=f"{head.removesuffix('.')}.",
            reason=f"{why[:1].upper()}{why[1:]} Measured on the {cards[0].n:,} labelled records of {source}.".strip(),
        ),
        sentences=more,
        plots=[_plot(cards)],
        tables=[_errors_table(cards, pages or {}, note=order), _costs_table(cards)],
        facts=[
            ("Policy", f"{policy.name}, sha256 {policy.sha256}"),
            ("Labels", f"sha256 {cards[0].labels_sha256 or 'unknown'}"),
            ("Whether a question is in scope", cards[0].instrument),
        ],
    )
    write_measurement(f"Judges of {policy.name} compared on {cards[0].n:,} labelled records", found, out=out)


def _plot(cards: Sequence[JudgeCard]) -> Forest:
    """Accuracy and kappa of each, its name and its cost beside them: what a judge is worth against what it takes."""
    return Forest(
        title="Accuracy and kappa, with what 1,000 verdicts take",
        note="95 % intervals",
        rows=[
            ForestRow(
                label=_cut(card.judge_id),
                marks=[
                    Mark(name="accuracy", rate=card.accuracy, role="challenger"),
                    Mark(name="kappa", rate=card.kappa, role="champion"),
                ],
                limit_text=cost_in_words(card),
            )
            for card in cards
        ],
        axis="value",
    )


def _cut(judge_id: str) -> str:
    """An id that is no longer than the narrowest plot is wide, its end kept, which tells two prompts apart."""
    return judge_id if len(judge_id) <= _LONGEST else f"{judge_id[: _LONGEST // 2]}…{judge_id[-_LONGEST // 2 + 1 :]}"


def _errors_table(cards: Sequence[JudgeCard], pages: Mapping[str, Path], *, note: str) -> Table:
    return Table(
        caption="How right they are",
        note=note,
        columns=[
            Column(name="Judge", wide=True),
            *(Column(name=name.capitalize(), numeric=True) for name in SHARES),
        ],
        rows=[[_named(card, pages), *(getattr(card, name) for name in SHARES)] for card in cards],
    )


def _costs_table(cards: Sequence[JudgeCard]) -> Table:
    numbers = ("Unjudged", "Seconds", "Dollars", "Tokens of prompts", "Tokens of answers")
    return Table(
        caption="What 1,000 verdicts take",
        note="a dash where it is not known",
        columns=[Column(name="Judge", wide=True), *(Column(name=name, numeric=True) for name in numbers)],
        rows=[
            [
                card.judge_id,
                card.unjudged,
                *((of.seconds, of.usd, round(of.prompt_tokens), round(of.completion_tokens)) if of else (None,) * 4),
            ]
            for card in cards
            for of in [card.usage]
        ],
    )


def _named(card: JudgeCard, pages: Mapping[str, Path]) -> Cell:
    page = pages.get(card.judge_id)
    return Link(text=card.judge_id, href=page.name) if page else card.judge_id
