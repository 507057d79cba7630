"""Policy and labelled data become a judge with its card, and the guard's; the base model becomes version 1."""

from __future__ import annotations

from typing import Any

from zenml import pipeline

from ontopic.config.model_settings import ModelSettings
from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice
from ontopic.state.workspace import Workspace
from pipelines.elsewhere import brought_along
from steps.calibrate_judge import calibrate_judge
from steps.register_base import register_base


@pipeline(name="calibrate")
def calibrate(
    *,
    model: ModelSettings,
    judge: JudgeChoice,
    policy: Policy,
    data_sha256: str,
    prompts: dict[str, str],
    guard_budget: float | None,
    workspace: Workspace,
) -> None:
    """Register the base model and calibrate the judge."""
    given: Any = brought_along(workspace, policy, prompts=judge.prompts)
    register_base(model=model, registered_model=policy.registered_model, workspace=given)
    calibrate_judge(
        judge=judge,
        policy=policy,
        data_sha256=data_sha256,
        prompts=prompts,
        guard_budget=guard_budget,
        workspace=given,
    )
