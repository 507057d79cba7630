"""Sample labelled questions."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from ontopic.data import sample as sampling
from ontopic.data.labelled import Questions
from ontopic.data.sample import Sample
from steps.caching import depends_on_imports


@step(cache_policy=depends_on_imports(__file__))
def choose_questions(sample: Sample) -> Annotated[Questions, "questions"]:
    """Returns the sample's questions, shuffled, and those that the sample adds to them behind."""
    return Questions(sampling.sampled_questions(sample))
