"""Open the judge, learn it where it is local, and measure it on labelled records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import mlflow
from zenml import step

from ontopic.judges import calibration, card, llm, local
from ontopic.policy import Policy
from ontopic.settings import JudgeSettings, LLMJudgeSettings
from ontopic.tracking import register_prompt
from ontopic.workspace import Workspace
from steps.caching import depends_on


@step(experiment_tracker=True, cache_policy=depends_on(calibration, card, llm, local))
def calibrate_judge(
    judge: JudgeSettings,
    policy: Policy,
    data_sha256: str,
    prompts: dict[str, str],
    prompts_folder: str,
    state: str,
    tracking_uri: str,
) -> Annotated[list[dict[str, Any]], "judge_cards"]:
    """Returns the judge's card, first, and the card of every other template where the judge is an LLM.

    Args:
        data_sha256: of the policy's labelled data; a part of the cache key.
        prompts: the judge prompts by name; all of them go to the prompt registry.
    """
    workspace = Workspace(Path(state))
    for name, template in prompts.items():
        uri = register_prompt(f"ontopic-judge-{name}", template, f"judge prompt {name}")
        mlflow.log_param(f"prompt_{name}", uri)
    variants = [judge]
    if isinstance(judge, LLMJudgeSettings):
        variants += [judge.model_copy(update={"template": name}) for name in prompts if name != judge.template]
    cards = []
    for variant in variants:
        opened = calibration.open_judge(variant, policy, Path(prompts_folder), workspace)
        cards.append(calibration.calibrate(opened, policy, workspace))
    mlflow.log_metrics({f"judge_{name}": value for name, value in cards[0].metrics().items()})
    mlflow.log_dict({"cards": [each.as_dict() for each in cards]}, "judge_cards.json")
    return [each.as_dict() for each in cards]
