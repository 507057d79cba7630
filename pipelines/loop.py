"""The whole loop: calibrate, monitor, and, where an alert is raised, improve and monitor again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from zenml.client import Client
from zenml.enums import ExecutionMode
from zenml.models import PipelineRunResponse
from zenml.pipelines.pipeline_definition import Pipeline

from ontopic.config.policy import Policy
from ontopic.config.settings import Settings
from ontopic.data.labelled import Split, source_sha256
from ontopic.data.sample import Sample
from ontopic.evaluation.gate import check_judge
from ontopic.judges.cards.card import JudgeCard
from ontopic.judges.cards.comparison import read_prompts
from ontopic.registry import versions as registry
from ontopic.registry.tracking import open_tracking
from ontopic.state.workspace import Workspace
from pipelines.calibrate import calibrate
from pipelines.improve import improve
from pipelines.monitor import monitor


@dataclass
class LoopResult:
    """What one turn of the loop did.

    Attributes:
        cards: judge cards, the gating judge's first.
        before: what monitoring found of the champion at the start.
        decision: the gate's, ``None`` where no alert asked for a challenger.
        after: what monitoring found of the promoted model, ``None`` where none was promoted.
        champion, challenger: model versions at the start and in the gate.
        stages: seconds of each stage, ``None`` for one taken from the cache.
    """

    cards: list[dict[str, Any]] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)
    decision: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    champion: str = ""
    challenger: str = ""
    stages: list[tuple[str, float | None]] = field(default_factory=list)


def run_loop(settings: Settings, policy: Policy, *, workspace: Workspace, tell: Callable[[str], object]) -> LoopResult:
    """Run the loop once on the active ZenML stack.

    Args:
        tell: called with a line for the reader before each part.
    """
    result = LoopResult()
    name, data = policy.registered_model, source_sha256(policy.questions)
    # One experiment a policy, so that all its runs can be compared.
    options: dict[str, Any] = {"settings": {"experiment_tracker.mlflow": {"experiment_name": name}}}
    options["execution_mode"] = ExecutionMode.FAIL_FAST  # else what a step raises is lost, a user's mistake with it
    shared: dict[str, Any] = {"policy": policy, "workspace": workspace}
    judging: dict[str, Any] = {"model": settings.model, "judge": settings.judge_choice}
    traffic, gate_questions = settings.traffic, settings.evaluation.questions

    def run(pipeline: Pipeline, label: str = "", **parameters: Any) -> PipelineRunResponse:
        started = pipeline.with_options(**options)(**shared, **parameters)
        assert started is not None
        open_tracking(workspace, name)  # ZenML's tracker resets MLflow after each step
        finished = Client().get_pipeline_run(started.id)
        result.stages += _times(finished, label)
        return finished

    def questions(split: Split, n: int, *, share: float, seed: int, skip: int = 0) -> Sample:
        return Sample(
            source=policy.questions,
            source_sha256=data,
            split=split,
            n=n,
            in_scope_share=share,
            seed=seed,
            skip=skip,
        )

    def watch(version: registry.RegisteredModel, sample: Sample) -> PipelineRunResponse:
        return run(
            monitor,
            f"version {version.version}",
            sample=sample,
            version=version.version,
            digest=version.digest,
            judge_card=result.cards[0],
            traffic=traffic,
            window_records=settings.monitoring.window_records,
            alerts=settings.alerts,
            **judging,
        )

    def monitored(watched: PipelineRunResponse) -> dict[str, Any]:
        found: dict[str, Any] = _output(watched, "report_traffic")
        if found["alerts"]:
            tell("\n".join(f"Alert: {alert}" for alert in found["alerts"]))
        return found

    tell("Calibrate: base model, judge and its card")
    prompts = read_prompts(settings.judge_prompts)
    labels = source_sha256(str(workspace.labels / f"{policy.name}.jsonl"))
    hashes = data + source_sha256(policy.records) + labels
    calibrated = run(calibrate, data_sha256=hashes, prompts=prompts, **judging)
    result.cards = _output(calibrated, "calibrate_judge")
    tell(
        "\n\n".join(
            [
                "The judge on labelled records of the calibration split",
                *map(str, map(JudgeCard.model_validate, result.cards)),
            ]
        )
    )

    champion = registry.find(name, registry.CHAMPION, state=workspace.root)
    result.champion = champion.version
    tell(f"Monitor: champion, version {champion.version}, is served and asked {traffic.questions} questions")
    watched = watch(champion, questions("train", traffic.questions, share=traffic.in_scope_share, seed=traffic.seed))
    result.before = monitored(watched)
    if not result.before["alerts"]:
        return result
    check_judge(
        JudgeCard.model_validate(result.cards[0]), policy
    )  # before a model is trained that could not be promoted

    tell("Improve: preferences from this traffic, ORPO, evaluation of both models, gate")
    attempts = settings.training.attempts
    for attempt in range(1, attempts + 1):
        training = settings.training.model_copy(update={"seed": settings.training.seed + attempt - 1})
        improved = run(
            improve,
            judged_artifact=str(watched.steps["judge_traffic"].output.id),
            sample=questions("evaluation", gate_questions, share=0.5, seed=settings.evaluation.seed),
            champion=champion.version,
            judge_card=JudgeCard.model_validate(result.cards[0]),
            settings=settings.model_copy(update={"training": training}),
            evidence={
                "policy_sha256": hashlib.sha256(policy.model_dump_json().encode()).hexdigest(),
                "questions_sha256": data,
                "attempt": str(attempt),  # an auditor should know how many challengers the gate has seen
            },
        )
        decision = _output(improved, "pass_gate").model_dump(mode="json")
        result.decision, result.challenger = decision, _output(improved, "train_challenger")
        if _output(improved, "promote_challenger"):
            break
        said = f"The gate refuses version {result.challenger}"
        if attempt == attempts:
            tell(f"{said}; no attempt is left of {attempts} (training.attempts)")
            return result
        failed = "\n".join(f"  {test['description']}" for test in decision["tests"] if not test["passed"])
        tell(f"{said}; attempt {attempt + 1} of {attempts}, with another seed\n{failed}")

    promoted = registry.find(name, registry.CHAMPION, state=workspace.root)
    tell(f"Monitor: version {promoted.version}, now the champion, is served and asked fresh questions")
    fresh = questions(
        "evaluation", traffic.fresh_questions, share=0.5, seed=settings.evaluation.seed, skip=gate_questions
    )
    result.after = monitored(watch(promoted, fresh))
    return result


def _output(run: PipelineRunResponse, step: str) -> Any:
    return run.steps[step].output.load()


def _times(run: PipelineRunResponse, label: str) -> list[tuple[str, float | None]]:
    """Each step with its seconds, ``None`` where it came from the cache, in the order they ran."""
    rows = []
    for name, step in run.steps.items():
        stage = name.replace("_", " ") + (f" ({label})" if label else "")
        seconds = None
        if step.status.value != "cached" and step.start_time and step.end_time:
            seconds = (step.end_time - step.start_time).total_seconds()
        rows.append((step.start_time.timestamp() if step.start_time else 0.0, stage, seconds))
    return [(stage, seconds) for _, stage, seconds in sorted(rows, key=lambda row: row[0])]
