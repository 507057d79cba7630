"""Open the judge, learn it where it is local, and measure it on labelled records."""

from __future__ import annotations

from typing import Annotated

import mlflow
from zenml import step

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice
from ontopic.errors import UserError
from ontopic.judges.cards import card, comparison
from ontopic.judges.cards import page as judge_report
from ontopic.judges.cards.card import JudgeCards
from ontopic.registry.tracking import register_prompts
from ontopic.state.workspace import Workspace
from steps.caching import JUDGES, depends_on


@step(
    experiment_tracker=True,
    cache_policy=depends_on(*JUDGES, card, comparison, judge_report),
)
def calibrate_judge(
    judge: JudgeChoice,
    policy: Policy,
    data_sha256: str,
    prompts: dict[str, str],
    workspace: Workspace,
) -> Annotated[JudgeCards, "judge_cards"]:
    """Returns the judge's card, first, and its card with every other template where the judge is an LLM.

    Each card is an MLflow run within this step's, with its page; the configured judge's numbers are this run's too.

    Args:
        data_sha256: of the policy's labelled data; a part of the cache key.
        prompts: the judge prompts by name; all of them go to the prompt registry.
    """
    mlflow.log_params({f"prompt_{name}": uri for name, uri in register_prompts(prompts).items()})
    variants = comparison.judge_variants(judge.settings, prompts)
    compared = comparison.calibrate_judges(variants, policy, prompts=judge.prompts, workspace=workspace)
    cards = [measured.card for measured in compared.measured]
    if cards[0].n and cards[0].accuracy.n == 0:  # or the cache would hold on to a server that is down
        cause = next(iter(cards[0].causes))
        raise UserError(f"the judge judged none of the {cards[0].n} labelled records: {cause}; see to it and run again")
    mlflow.set_tag("stage", "calibration")
    mlflow.log_metrics({f"judge_{name}": value for name, value in cards[0].metrics().items()})
    mlflow.log_dict({"cards": [each.model_dump(mode="json") for each in cards]}, "judge_cards.json")
    for page in [*compared.pages, compared.page]:
        mlflow.log_artifact(str(page))
    # Later steps take a card as a parameter; its hundreds of groups are on the page and in MLflow.
    return JudgeCards([each.model_copy(update={"groups": ()}) for each in cards])
