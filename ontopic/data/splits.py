"""Splits of labelled rows: one that a row leaves out is drawn, and nearly the same questions go into the same one."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar, cast

from ontopic.data.same_question import near_duplicates

if TYPE_CHECKING:
    from ontopic.data.labelled import LabelledRecord, Question, Split

    Row = TypeVar("Row", bound=Question | LabelledRecord)
    Shares = Mapping[Split, float]

# Of the rows that are drawn. Records measure and teach judges alone, so none is kept for the gate.
QUESTION_SHARES: Shares = {"train": 0.5, "evaluation": 0.3, "calibration": 0.2}
RECORD_SHARES: Shares = {"train": 0.6, "calibration": 0.4}


def with_splits(
    rows: Sequence[Row], shares: Shares, *, source: str | None, beside: Sequence[tuple[str, Split]] = ()
) -> list[Row]:
    """The rows, each with a split: its own, or else one that is drawn and said, once a process, on standard error.

    The same rows get the same splits. Each kind of row (its scope, its label) gets about the same shares. A row that is
    nearly the same question in the same conversation as one that has a split gets that one, and so does a later turn.

    Args:
        source: what the rows are of, to be named; ``None`` where nothing is to be said.
        beside: what is spoken in other questions, and their splits, which the drawn ones must fit.
    """
    if all(row.split for row in rows):
        return list(rows)
    given = tuple((row.spoken, row.split, (row.in_scope, getattr(row, "label", None))) for row in rows)
    drawn = _drawn(given, shares=tuple(shares.items()), source=source, beside=tuple(beside))
    return [
        row if row.split else cast("Row", row.model_copy(update={"split": split}))
        for row, split in zip(rows, drawn, strict=True)
    ]


@lru_cache(maxsize=8)
def _drawn(
    rows: tuple[tuple[str, Split | None, Hashable], ...],
    *,
    shares: tuple[tuple[Split, float], ...],
    source: str | None,
    beside: tuple[tuple[str, Split], ...],
) -> list[Split]:
    """Each row's split, its own or the drawn one."""
    texts = [spoken for spoken, _, _ in rows]
    fixed: dict[str, Split] = dict(beside)
    fixed |= {text: split for text, (_, split, _) in zip(texts, rows, strict=True) if split}
    kinds: dict[str, Counter[Hashable]] = defaultdict(Counter)
    for text, (_, _, kind) in zip(texts, rows, strict=True):
        kinds[text][kind] += 1
    totals = Counter(kind for _, _, kind in rows)
    got: dict[Split, Counter[Hashable]] = {split: Counter() for split, _ in shares}
    splits: dict[str, Split] = {}

    def put(group: Sequence[str], split: Split) -> None:
        for text in group:
            splits[text] = fixed.get(text, split)
            got.setdefault(splits[text], Counter()).update(kinds[text])

    groups = _groups(sorted(kinds), sorted(fixed.keys() - kinds.keys()))
    free = []
    for group, near in groups:
        bound = Counter(fixed[text] for text in (*group, *near) if text in fixed)
        if bound:
            put(group, bound.most_common(1)[0][0])
        else:
            free.append(group)
    for group in sorted(free, key=lambda group: (-len(group), hashlib.sha256(group[0].encode()).digest())):
        of_group = sum((kinds[text] for text in group), Counter[Hashable]())

        def lacking(split_and_share: tuple[Split, float], of_group: Counter[Hashable] = of_group) -> float:
            split, share = split_and_share
            # As a part of what the split is to have, so that the small ones get theirs too.
            return sum(n * (1 - got[split][kind] / (share * totals[kind])) for kind, n in of_group.items())

        put(group, max(shares, key=lacking)[0])
    drawn = [split or splits[text] for text, (_, split, _) in zip(texts, rows, strict=True)]
    if source is not None:
        _say(source, [new for new, (_, split, _) in zip(drawn, rows, strict=True) if not split], n=len(rows))
    return drawn


def _groups(texts: Sequence[str], others: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """Texts that are nearly the same or the beginning of another, over however many steps; with each group those of the
    others that are near."""
    everything = [*texts, *others]
    first = list(range(len(everything)))

    def root(i: int) -> int:
        while first[i] != i:
            first[i] = first[first[i]]
            i = first[i]
        return i

    for i, j in [*near_duplicates(texts, everything), *_turns_of_one(everything)]:
        low, high = sorted((root(i), root(j)))
        first[high] = low
    groups: dict[int, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for i, text in enumerate(everything):
        groups[root(i)][i >= len(texts)].append(text)
    return [group for group in groups.values() if group[0]]


def _turns_of_one(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of indices of conversations of which one goes on where the other ends."""
    places = {text: i for i, text in enumerate(texts)}
    for i, text in enumerate(texts):
        said = text.split("\n")
        earlier = ("\n".join(said[:n]) for n in range(1, len(said)))
        yield from ((places[beginning], i) for beginning in earlier if beginning in places)


def _say(source: str, drawn: Sequence[Split], *, n: int) -> None:
    counts = ", ".join(f"{k} to {split}" for split, k in Counter(drawn).most_common())
    print(
        f"{source}: {len(drawn)} of {n} rows have no split; drawn, the same whenever this file is read: {counts}. "
        "Give each row its `split` to keep it there when rows are added.",
        file=sys.stderr,
    )
