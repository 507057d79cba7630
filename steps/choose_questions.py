"""Sample labelled questions."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from ontopic.data import labelled as labelled_data
from ontopic.data.labelled import Questions
from ontopic.data.sample import Sample
from ontopic.errors import UserError
from ontopic.evaluation import answers as evaluation
from ontopic.training import preferences
from steps.caching import depends_on


@step(cache_policy=depends_on(evaluation, labelled_data, preferences))
def choose_questions(sample: Sample) -> Annotated[Questions, "questions"]:
    """Returns labelled questions of one split, shuffled."""
    questions = [q for q in labelled_data.load_questions(sample.source) if q.split == sample.split]
    chosen = evaluation.sample(
        questions, sample.n, in_scope_share=sample.in_scope_share, seed=sample.seed, skip=sample.skip
    )
    if len({question.in_scope for question in chosen}) < 2:
        raise UserError(f"{sample.source}: the {sample.split} split has too few questions in or out of scope; add some")
    known = {preferences.normalized(question.question) for question in chosen}
    chosen += [question for question in sample.more if preferences.normalized(question.question) not in known]
    return Questions(chosen)
