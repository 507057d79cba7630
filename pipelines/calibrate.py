"""Policy and labelled data become a judge with its card; the base model becomes version 1."""

from __future__ import annotations

from zenml import pipeline

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeSettings, ModelSettings
from steps.calibrate_judge import calibrate_judge
from steps.register_base import register_base


@pipeline(name="calibrate")
def calibrate(
    model: ModelSettings,
    judge: JudgeSettings,
    *,
    policy: Policy,
    data_sha256: str,
    prompts: dict[str, str],
    prompts_folder: str,
    state: str,
    tracking_uri: str,
) -> None:
    """Register the base model and calibrate the judge."""
    register_base(model, policy.registered_model, state, tracking_uri)
    calibrate_judge(judge, policy, data_sha256, prompts, prompts_folder, state, tracking_uri)
