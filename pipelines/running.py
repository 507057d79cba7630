"""Running a pipeline to its end on the active ZenML stack, and reading what came of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from zenml.client import Client
from zenml.enums import ExecutionMode
from zenml.models import PipelineRunResponse
from zenml.pipelines.pipeline_definition import Pipeline

from ontopic.config.policy import Policy
from ontopic.registry.tracking import open_tracking
from ontopic.state.workspace import Workspace
from pipelines.model_versions import link_versions


def finished(
    pipeline: Pipeline, policy: Policy, *, workspace: Workspace, called: str, **parameters: Any
) -> PipelineRunResponse:
    """Run a pipeline on a policy and return its run.

    Args:
        called: what the run is called in ZenML and in MLflow; the time is added.
        parameters: of the pipeline, besides policy and workspace.
    """
    name = policy.registered_model
    configured = pipeline.with_options(
        run_name=f"{called}, {datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3],
        # One experiment a policy, so that all its runs can be compared.
        settings={"experiment_tracker.mlflow": {"experiment_name": name}},
        execution_mode=ExecutionMode.FAIL_FAST,  # else what a step raises is lost, a user's mistake with it
    )
    try:
        started = configured(policy=policy, workspace=workspace, **parameters)
    finally:
        open_tracking(workspace, name)  # ZenML's tracker resets MLflow after each step
    assert started is not None
    run = Client().get_pipeline_run(started.id)
    link_versions(run, name, workspace=workspace, version=str(parameters.get("version", "")))
    return run


def output(run: PipelineRunResponse, step: str, *, name: str | None = None) -> Any:
    """What a step of a run returned: its one output, or that of several with this name."""
    if name is None:
        return run.steps[step].output.load()
    (artifact,) = run.steps[step].outputs[name]
    return artifact.load()


def artifact_id(run: PipelineRunResponse, step: str) -> str:
    """The id of the artifact that a step of a run returned."""
    return str(run.steps[step].output.id)


def times(run: PipelineRunResponse, label: str = "") -> list[tuple[str, float | None]]:
    """Each step with its seconds, ``None`` where it came from the cache, in the order they ran."""
    rows = []
    for name, step in run.steps.items():
        stage = name.replace("_", " ") + (f" ({label})" if label else "")
        seconds = None
        if step.status.value != "cached" and step.start_time and step.end_time:
            seconds = (step.end_time - step.start_time).total_seconds()
        rows.append((step.start_time.timestamp() if step.start_time else 0.0, stage, seconds))
    return [(stage, seconds) for _, stage, seconds in sorted(rows, key=lambda row: row[0])]
