"""What ``judge`` and ``calibrate`` report, as values; they hold cards, which take a second to import."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ontopic.judges.cards.card import JudgeCard
from ontopic.judges.cards.comparison import JudgesCompared
from ontopic.judges.guard.card import GuardCard
from ontopic.statistics.rates import Rate, rate

_CAUSES = 3  # of unjudged records, that are said in words


class JudgedFile(BaseModel):
    """A file of records that was judged.

    Attributes:
        out: the file of verdicts.
        unjudged: how many records are unjudged for which cause, the most frequent first.
        skipped: malformed rows that were left out.
        kept: verdicts of a call that was stopped.
        winners: of pairwise grading: how often ``a`` (the answer) and ``b`` (the benchmark's) win; else ``None``.
        card: ``None`` where no record carries a label.
        agreement: Krippendorff's alpha of a panel's members; ``None`` for a single judge.
    """

    model_config = ConfigDict(frozen=True)
    judge_id: str
    out: str
    records: int
    unjudged: dict[str, int]
    skipped: int
    kept: int
    winners: dict[str, int] | None
    card: JudgeCard | None
    agreement: Rate | None

    def in_words(self) -> Iterator[str]:
        """Line by line, for a person."""
        if (won := self.winners) is not None:
            first, second, tied, unjudged = (won.get(name, 0) for name in ("a", "b", "tie", "unjudged"))
            yield f"the answer wins {first}, the benchmark's wins {second}, ties {tied}"
            yield f"share won of those decided: {rate(first, first + second)}; {unjudged} unjudged"
        elif self.card:
            yield str(self.card)
        if self.agreement:
            yield f"agreement of the panel (Krippendorff's alpha) {self.agreement}"
        if self.kept:
            yield f"{self.kept} verdicts were kept from a call that was stopped"
        if self.unjudged and self.winners is None and not self.card:
            total, first_causes = sum(self.unjudged.values()), list(self.unjudged.items())[:_CAUSES]
            yield f"{total} unjudged ({'; '.join(f'{n} {cause}' for cause, n in first_causes)})"
        if self.skipped:
            yield f"{self.skipped} malformed rows were left out"
        yield f"{self.records} verdicts are in {self.out}"


class JudgedFolder(BaseModel):
    """Partitions of records that were judged.

    Attributes:
        out: the folder of verdicts.
        kept: of the partitions, those that an earlier call had judged.
        outcomes: how many records have which verdict.
        unjudged: how many are unjudged for which cause, the most frequent first.
    """

    model_config = ConfigDict(frozen=True)
    judge_id: str
    out: str
    records: int
    partitions: int
    kept: int
    outcomes: dict[str, int]
    unjudged: dict[str, int]

    def in_words(self) -> Iterator[str]:
        """Line by line, for a person."""
        passed, failed = self.outcomes.get("pass", 0), self.outcomes.get("fail", 0)
        yield f"passed, of the judged records: {rate(passed, passed + failed)}"
        if self.unjudged:
            first = ", ".join(f"{n:,} {cause}" for cause, n in list(self.unjudged.items())[:_CAUSES])
            yield f"{self.outcomes.get('unjudged', 0):,} unjudged ({first})"
        if self.kept:
            yield f"{self.kept:,} partitions were judged by an earlier call"
        yield f"{self.records:,} verdicts on {self.partitions:,} partitions are in {self.out}"


class JudgesShown(BaseModel):
    """Judges on the same labelled records, without these and their verdicts.

    Attributes:
        source: what the records are.
        cards: the best judge's first.
        told_the_scope: as the gate tells it; those that may gate.
        guard: ``None`` where there is none.
        sentences: what the comparison says.
        pages: the one that compares them first.
    """

    model_config = ConfigDict(frozen=True)
    source: str
    cards: list[JudgeCard]
    told_the_scope: list[JudgeCard]
    guard: GuardCard | None
    sentences: list[str]
    pages: list[Path]

    @classmethod
    def of(cls, compared: JudgesCompared, source: str, *, guard: tuple[GuardCard, Path] | None) -> JudgesShown:
        """What a comparison comes to."""
        return cls(
            source=source,
            cards=[measured.card for measured in compared.ranked],
            told_the_scope=[measured.card for measured in compared.told_scope],
            guard=guard[0] if guard else None,
            sentences=compared.sentences,
            pages=[compared.page, *compared.pages, *([guard[1]] if guard else [])],
        )
