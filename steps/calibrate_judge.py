"""Open the judge, learn it where it is local, and measure it on labelled records."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice
from ontopic.judges.cards import card
from ontopic.state.workspace import Workspace
from steps.caching import depends_on_imports
from steps.pages import PAGES


@step(
    experiment_tracker=True,
    cache_policy=depends_on_imports(__file__),
    output_materializers=PAGES,
)
def calibrate_judge(
    judge: JudgeChoice,
    policy: Policy,
    *,
    data_sha256: str,
    prompts: dict[str, str],
    guard_budget: float | None,
    workspace: Workspace,
) -> Annotated[card.JudgeCards, "judge_cards"]:
    """Returns the judge's card, first, its card with every other template where the judge is an LLM, and then those
    of what may gate: told the scope. The guard's card is kept beside the judge's.

    Each card is an MLflow run within this step's, with its page; the configured judge's numbers are this run's too.

    Args:
        data_sha256: of the policy's labelled data; a part of the cache key.
        prompts: the judge prompts by name; all of them go to the prompt registry.
        guard_budget: the over-refusal that the guard may spend; ``None`` where there is none.
    """
    import mlflow

    from ontopic.judges.cards import choices, comparison
    from ontopic.judges.guard.page import drawn_guard_card
    from ontopic.registry.tracking import register_prompts

    mlflow.log_params({f"prompt_{name}": uri for name, uri in register_prompts(prompts).items()})
    variants = choices.judge_variants(judge.settings, prompts)
    chosen = [judge.model_copy(update={"settings": variant}) for variant in variants]
    compared = comparison.compare_judges(chosen, policy, workspace=workspace)
    cards = [measured.card for measured in compared.measured]
    cards[0].check_any_judged()  # or the cache would hold on to a server that is down
    mlflow.set_tag("stage", "calibration")
    mlflow.log_metrics({f"judge_{name}": value for name, value in cards[0].metrics().items()})
    mlflow.log_dict({"cards": [each.model_dump(mode="json") for each in cards]}, "judge_cards.json")
    for page in [*compared.pages, compared.page]:
        mlflow.log_artifact(str(page))
    if guard_budget is not None:
        guard, page = drawn_guard_card(policy, workspace, budget=guard_budget)
        mlflow.log_metrics(guard.metrics())
        mlflow.log_dict(guard.model_dump(mode="json"), "guard_card.json")
        mlflow.log_artifact(str(page))
    # Later steps take a card as a parameter; its hundreds of groups are on the page and in MLflow.
    cards += [measured.card for measured in compared.told_scope]
    kept = card.JudgeCards([each.model_copy(update={"groups": ()}) for each in cards])
    return kept.drawn_in([*compared.pages, compared.page])
