"""Hold a challenger against the champion on questions that cost nothing, before a look at held-out ones is spent."""

from __future__ import annotations

from typing import Annotated

import mlflow
from zenml import step

from ontopic.config.policy import Policy
from ontopic.evaluation import rehearsal
from ontopic.evaluation.gate import Evaluated
from ontopic.evaluation.rehearsal import Rehearsal
from steps.caching import depends_on_imports


@step(experiment_tracker=True, cache_policy=depends_on_imports(__file__))
def rehearse(*, champion: Evaluated, challenger: Evaluated, policy: Policy) -> Annotated[Rehearsal, "rehearsal"]:
    """Returns whether the challenger may take a look, and why."""
    found = rehearsal.rehearsed(champion.evaluation, challenger.evaluation, limits=policy.gate)
    mlflow.set_tag("rehearsal", "passed" if found.passed else "failed")
    return found
