"""Sample labelled questions."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from ontopic.data import sample as sampling
from ontopic.data.labelled import Questions
from ontopic.data.sample import Sample
from ontopic.state.workspace import Workspace
from steps.caching import depends_on_imports


@step(cache_policy=depends_on_imports(__file__))
def choose_questions(sample: Sample, *, workspace: Workspace) -> Annotated[Questions, "questions"]:
    """Returns the sample's questions, shuffled, and those that the sample adds to them behind.

    Args:
        workspace: with which the sample's file comes along, where the step runs on another machine.
    """
    return Questions(sampling.sampled_questions(sample))
