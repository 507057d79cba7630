"""Which labelled questions are asked: so many of a split, with a share in scope, and none that is sealed."""

from __future__ import annotations

import random
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from ontopic.data.labelled import Question, Split, load_questions
from ontopic.data.sealed import open_and_sealed, sealed_questions
from ontopic.errors import UserError


class Sample(BaseModel):
    """A sample of labelled questions, which the same values repeat.

    Attributes:
        source: as ``load_rows`` takes it.
        source_sha256: of the data behind ``source``; a part of a step's cache key.
        n: how many; fewer where there are not enough of a scope.
        in_scope_share: of them.
        skip: leave out this many questions that a sample of size ``skip`` with the same seed would hold.
        languages: the policy's.
        more: other questions, which follow those where they differ from them and are not sealed.
    """

    model_config = ConfigDict(frozen=True)
    source: str
    source_sha256: str
    split: Split
    n: int
    in_scope_share: float = 0.5
    seed: int = 0
    skip: int = 0
    languages: list[str] = []
    more: list[Question] = []


def sampled_questions(sample: Sample) -> list[Question]:
    """The questions of the sample, loaded from its source, and ``more`` behind them.

    Raises:
        UserError: the source can't be read, or its split has no question in scope or none out of it to choose.
    """
    _, chosen = _found_and_chosen(sample)
    sealed = sealed_questions(sample.source, sample.languages) if sample.more else []
    known = {question.spoken for question in (*chosen, *sealed)}
    return chosen + [question for question in sample.more if question.spoken not in known]


def in_and_out(questions: Sequence[Question]) -> tuple[int, int]:
    """How many of the questions are in scope, and how many out of it."""
    inside = sum(question.in_scope for question in questions)
    return inside, len(questions) - inside


def sample_in_words(sample: Sample) -> str:
    """How many questions the sample has, and why they are not more where they are fewer than it wants.

    Raises what ``sampled_questions`` raises.
    """
    found, chosen = _found_and_chosen(sample)
    if len(chosen) >= sample.n - 1:  # the shares are rounded
        return f"{len(chosen)} questions"
    inside, outside = in_and_out(found)
    skipped = f", and {sample.skip} are asked elsewhere" if sample.skip else ""
    return (
        f"{len(chosen)} questions, not {sample.n}: the {sample.split} split has {inside} in scope and {outside} out of "
        f"scope{skipped}"
    )


def _found_and_chosen(sample: Sample) -> tuple[list[Question], list[Question]]:
    """The questions of the sample's split that are not sealed, and those of them that it has."""
    found = load_questions(sample.source, split=sample.split, languages=sample.languages)
    if sample.split == "evaluation":
        found, _ = open_and_sealed(found)
    chosen = draw(found, sample)
    if len({question.in_scope for question in chosen}) < 2:
        inside, outside = in_and_out(found)
        skipped = f" ({sample.skip} are asked elsewhere)" if sample.skip else ""
        raise UserError(
            f"{sample.source}: the {sample.split} split has too few questions to ask: {inside} in scope and {outside} "
            f"out of scope{skipped}, and needs at least 1 of each; add some, or give some this split"
        )
    return found, chosen


def draw(questions: Sequence[Question], sample: Sample) -> list[Question]:
    """The sample's questions among those of its split, shuffled; ``more`` is not looked at."""
    chance = random.Random(sample.seed)
    chosen = []
    for in_scope, share in ((True, sample.in_scope_share), (False, 1 - sample.in_scope_share)):
        kind = [question for question in questions if question.in_scope is in_scope]
        chance.shuffle(kind)
        start = round(sample.skip * share)
        chosen += kind[start : start + round(sample.n * share)]
    chance.shuffle(chosen)
    return chosen
