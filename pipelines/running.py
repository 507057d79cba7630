"""Running a pipeline to its end on the active ZenML stack, and reading what came of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NoReturn

from zenml.client import Client
from zenml.enums import ExecutionMode, ExecutionStatus
from zenml.models import PipelineRunResponse
from zenml.pipelines.pipeline_definition import Pipeline

from ontopic.config.cluster_settings import ClusterSettings
from ontopic.config.policy import Policy
from ontopic.errors import UserError
from ontopic.registry.tracking import open_tracking
from ontopic.state.workspace import Workspace
from pipelines.elsewhere import runs_elsewhere, runs_in
from pipelines.model_versions import link_versions


def finished(
    pipeline: Pipeline,
    policy: Policy,
    *,
    workspace: Workspace,
    called: str,
    cluster: ClusterSettings | None,
    **parameters: Any,
) -> PipelineRunResponse:
    """Run a pipeline on a policy and return its run.

    Args:
        called: what the run is called in ZenML and in MLflow; the time is added.
        cluster: what the steps run in, where they run elsewhere.
        parameters: of the pipeline, besides policy and workspace.

    Raises:
        UserError: a step said so on another machine, or there should be others and are none.
    """
    name, run_name = policy.registered_model, f"{called}, {datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3]
    elsewhere = runs_elsewhere()
    if cluster and not elsewhere:
        raise UserError(
            "the configuration has a section `cluster`, and the active ZenML stack runs its steps on this machine; "
            "register one on your cluster (docs/how-to/cluster.md), or leave the section out"
        )
    options = runs_in(cluster) if cluster else {}
    # One experiment a policy, so that all its runs can be compared.
    tracked = {"experiment_tracker.mlflow": {"experiment_name": name}}
    configured = pipeline.with_options(
        **{**options, "settings": {**options.get("settings", {}), **tracked}},
        run_name=run_name,
        execution_mode=ExecutionMode.FAIL_FAST,  # else what a step raises is lost, a user's mistake with it
    )
    try:
        started = configured(policy=policy, workspace=workspace, **parameters)
    except Exception as error:
        if elsewhere:
            _raise_as_here(run_name, error)
        raise
    finally:
        open_tracking(workspace, name)  # ZenML's tracker resets MLflow after each step
    assert started is not None
    run = Client().get_pipeline_run(started.id)
    if elsewhere and run.status != ExecutionStatus.COMPLETED:
        _raise_as_here(run_name, RuntimeError(f"ZenML's run {run_name!r} is {run.status.value}"))
    link_versions(run, name, workspace=workspace, version=str(parameters.get("version", "")))
    return run


def _raise_as_here(run_name: str, error: Exception) -> NoReturn:
    """Raise what a step raised on another machine, as far as it is known here.

    Args:
        error: what ZenML says of the run, which gets the step's traceback as a note.

    Raises:
        UserError: the step raised it.
    """
    for run in Client().list_pipeline_runs(name=run_name, hydrate=True):
        for name, step in run.steps.items():
            if (info := step.exception_info) is None:
                continue
            if info.source == f"{UserError.__module__}.{UserError.__qualname__}":
                raise UserError(info.message or "") from None
            error.add_note(f"in the step {name}:\n{info.traceback}")
    raise error


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
