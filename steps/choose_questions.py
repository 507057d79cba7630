"""Sample labelled questions."""

from __future__ import annotations

from typing import Annotated, Any

from zenml import step

from ontopic.data import labelled as labelled_data
from ontopic.data.same_question import normalized
from ontopic.errors import UserError
from ontopic.evaluation import answers as evaluation
from steps.caching import depends_on_imports


@step(cache_policy=depends_on_imports(__file__))
def choose_questions(
    source: str,
    source_sha256: str,
    split: str,
    n: int,
    in_scope_share: float,
    seed: int,
    skip: int = 0,
    more: list[dict[str, Any]] | None = None,
) -> Annotated[list[dict[str, Any]], "questions"]:
    """Returns labelled questions of one split, shuffled.

    Args:
        source_sha256: of the data behind ``source``; a part of the cache key.
        skip: leave out the first so many, which another step of the same seed has taken.
        more: other labelled questions, which follow those where they differ from them.
    """
    questions = [q for q in labelled_data.load_questions(source) if q.split == split]
    chosen = evaluation.sample(questions, n, in_scope_share=in_scope_share, seed=seed, skip=skip)
    if len({question.in_scope for question in chosen}) < 2:
        raise UserError(f"{source}: the {split} split has too few questions in or out of scope; add some")
    known = {normalized(question.question) for question in chosen}
    others = [labelled_data.Question.model_validate(row) for row in more or []]
    chosen += [question for question in others if normalized(question.question) not in known]
    return [question.model_dump(mode="json") for question in chosen]
