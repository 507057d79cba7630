"""Labelled rows that say where they come from, and what is to be said of those that a model wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ontopic.config.policy import Policy
from ontopic.data.labelled import LabelledRecord, Question
from ontopic.data.rows import load_rows

Origin = Literal["own", "synthetic"]


class MarkedQuestion(Question):
    """A question with where it comes from.

    Attributes:
        origin: ``synthetic`` where an LLM wrote it for this policy.
        reviewed: whether a person has seen it.
    """

    origin: Origin = "own"
    reviewed: bool = True


class MarkedRecord(LabelledRecord):
    """A labelled record with where it comes from, as ``MarkedQuestion``."""

    origin: Origin = "own"
    reviewed: bool = True


Marked = MarkedQuestion | MarkedRecord


def synthetic_in_words(policy: Policy) -> str:
    """What is to be said of a policy's synthetic data; empty where it has none. Raises what ``load_rows`` raises."""
    rows: list[Marked] = [*load_rows(policy.questions, MarkedQuestion).rows]
    return rows_in_words([*rows, *load_rows(policy.records, MarkedRecord).rows])


def rows_in_words(rows: Sequence[Marked]) -> str:
    """As ``synthetic_in_words``, of these rows."""
    synthetic = [row for row in rows if row.origin == "synthetic"]
    if not synthetic:
        return ""
    unseen = sum(not row.reviewed for row in synthetic)
    by = f"{unseen} of which nobody has reviewed" if unseen else "all of them reviewed by a person"
    return (
        f"{len(synthetic)} of {len(rows)} labelled rows are synthetic, {by}: cards and gates measured on them hold for "
        "such texts, and not yet for what your users write; label real traffic (python run.py label)"
    )
