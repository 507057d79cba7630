"""The whole loop: calibrate, monitor, and, where a window is detected, improve and monitor again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from zenml.models import PipelineRunResponse
from zenml.pipelines.pipeline_definition import Pipeline

from ontopic.config.policy import Policy
from ontopic.config.settings import Settings
from ontopic.data.labels import labels_sha256
from ontopic.data.rows import source_sha256
from ontopic.data.sample import Sample, in_and_out, sample_in_words, sampled_questions
from ontopic.data.sealed import sealed_in_words
from ontopic.data.synthetic import synthetic_in_words
from ontopic.errors import UserError
from ontopic.evaluation.gate import Decision, check_judge
from ontopic.evaluation.gate_size import too_few
from ontopic.evaluation.looks import Look
from ontopic.evaluation.rehearsal import rehearsal_in_words
from ontopic.judges.cards.card import JudgeCard, JudgeCards
from ontopic.judges.cards.choices import read_prompts
from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.asked_traffic import Monitored
from ontopic.registry.promotions import CHAMPION, open_registry
from ontopic.registry.rollouts import rollout_of
from ontopic.registry.sign_off import SignOff
from ontopic.registry.versions import RegisteredModel, find
from ontopic.state.workspace import Workspace
from ontopic.watch.next_training import asked_sample
from ontopic.watch.retraining import Improved
from pipelines.attempt import evidence, gate_sample, improved
from pipelines.calibrate import calibrate
from pipelines.improve import improve
from pipelines.lost_results import forget_lost_results
from pipelines.monitor import monitor
from pipelines.running import artifact_id, finished, output, times


@dataclass
class LoopResult:
    """What one turn of the loop did.

    Attributes:
        cards: judge cards, the gating judge's first.
        before: what monitoring found of the champion at the start; ``None`` before it has looked.
        decision: the gate's, ``None`` where no detected window asked for a challenger.
        after: what monitoring found of the promoted model, ``None`` where none was promoted.
        no_gate: why the judge may not gate, so that nothing is alerted, trained or promoted; empty where it may.
        waiting: what challengers wait for approval or are rolled out, in words; while one is, none is trained.
        ended: why a challenger that has passed the gate neither waits nor is promoted; empty where it is otherwise.
        champion, challenger: model versions at the start and in the gate.
        seed: of the draw of the last gate's questions.
        stages: seconds of each stage, ``None`` for one taken from the cache.
    """

    cards: JudgeCards = field(default_factory=lambda: JudgeCards([]))
    before: Monitored | None = None
    decision: Decision | None = None
    after: Monitored | None = None
    no_gate: str = ""
    waiting: list[str] = field(default_factory=list)
    ended: str = ""
    champion: str = ""
    challenger: str = ""
    seed: int = 0
    stages: list[tuple[str, float | None]] = field(default_factory=list)

    @property
    def card(self) -> JudgeCard:
        """The gating judge's, on records whose scope it isn't told, as traffic's isn't."""
        return self.cards.root[0]


def run_loop(
    settings: Settings, policy: Policy, *, workspace: Workspace, by: str | None, tell: Callable[[str], object]
) -> LoopResult:
    """Run the loop once on the active ZenML stack.

    Args:
        by: who started it; ``None`` where the machine does not say.
        tell: called with a line for the reader before each part.
    """
    return _Loop(settings, policy, workspace=workspace, by=by, tell=tell).run()


class _Loop:
    """One turn of the loop; ``result`` fills up as it goes."""

    def __init__(
        self,
        settings: Settings,
        policy: Policy,
        *,
        workspace: Workspace,
        by: str | None,
        tell: Callable[[str], object],
    ) -> None:
        self._settings, self._policy, self._workspace, self._tell = settings, policy, workspace, tell
        self._by, self._sign_off = by, SignOff(settings.promotion, policy, workspace=workspace)
        self.result = LoopResult()

    def run(self) -> LoopResult:
        if lost := forget_lost_results(self._workspace, self._policy.registered_model):
            self._tell(f"What {lost} stages of earlier runs made was removed; where it is needed, they run again")
        self._calibrate()
        self.result.no_gate = self._why_no_gate()
        if self.result.no_gate:
            self._tell(
                f"{self.result.no_gate}\nSo no alert is raised, and nothing is trained or promoted: the traffic is "
                "asked and judged for you to see and to label"
            )
        else:
            self._settle()
        champion, traffic = self._champion(), self._settings.traffic
        self.result.champion = champion.version
        asked = asked_sample(self._settings, self._policy)
        self._tell(f"Monitor: champion, version {champion.version}, is served and asked {sample_in_words(asked)}")
        run, self.result.before = self._monitor(champion, asked)
        if self.result.no_gate or not self.result.before.detected:
            return self.result
        if self.result.waiting:
            self._tell(
                "\n".join(["Nothing is trained while a challenger waits or is rolled out:", *self.result.waiting])
            )
            return self.result

        self._tell("Improve: preferences from this traffic, ORPO, evaluation of both models, gate")
        self._tell(self._gate_in_words())
        if not self._improve(champion.version, artifact_id(run, "judge_traffic")):
            return self.result

        promoted = self._champion()
        # The gate has asked the first ones of its look's seed.
        asked_before, seed = self._settings.evaluation.questions, self.result.seed
        fresh = self._sample(split="evaluation", n=traffic.fresh_questions, seed=seed, skip=asked_before)
        try:
            asked_in_words = sample_in_words(fresh)
        except UserError as error:  # the promotion stands all the same
            self._tell(f"Version {promoted.version} is the champion now, and asked nothing more: {error}")
            return self.result
        self._tell(f"Monitor: version {promoted.version}, now the champion, is served and asked {asked_in_words}")
        _, self.result.after = self._monitor(promoted, fresh)
        return self.result

    def _calibrate(self) -> None:
        self._tell("Calibrate: base model, judge and its card")
        policy, settings = self._policy, self._settings
        run = self._finished(
            calibrate,
            called="calibrate the judge",
            model=self._settings.model,
            judge=self._settings.judge_choice,
            data_sha256="".join([*map(source_sha256, (policy.questions, policy.records)), self._labels_sha256()]),
            prompts=read_prompts(self._settings.judge_prompts),
            guard_budget=None if settings.guard == "off" else settings.serving.guard_budget,
        )
        # Not in the step, which ZenML's cache may stand in for.
        open_registry(self._workspace, policy.registered_model).ensure_champion(output(run, "register_base"))
        self.result.cards = output(run, "calibrate_judge")
        title = "The judge on labelled records of the calibration split"
        self._tell("\n\n".join([title, *map(str, self.result.cards.root)]))
        if said := synthetic_in_words(policy):
            self._tell(said)

    def _why_no_gate(self) -> str:
        """Why nothing may be decided by the judge's verdicts; empty where it may gate."""
        try:
            check_judge(self.result.cards.gate, self._policy)
        except UserError as error:
            return str(error)
        return ""

    def _monitor(self, version: RegisteredModel, asked: Sample) -> tuple[PipelineRunResponse, Monitored]:
        run = self._finished(
            monitor,
            f"version {version.version}",
            called=f"monitor v{version.version}",
            sample=asked,
            version=version.version,
            digest=version.digest,
            judge_card=self.result.card,
            labels_sha256=self._labels_sha256(),
            settings=self._settings.model_copy(update={"alerts": []}) if self.result.no_gate else self._settings,
        )
        monitored: Monitored = output(run, "report_traffic")
        if monitored.alerts and not self.result.no_gate:
            self._tell("\n".join(f"Alert: {alert}" for alert in monitored.alerts))
        if monitored.beside:
            self._tell("\n".join(f"Beside, {each.name}: {each.in_words}" for each in monitored.beside))
        if not monitored.is_corrected:
            self._tell(f"The guardrail score is {monitored.in_words}")
        return run, monitored

    def _improve(self, champion: str, judged_artifact: str) -> bool:
        """Make attempts until a challenger is promoted; whether one was."""
        attempts = self._settings.training.attempts
        for attempt in range(1, attempts + 1):
            outcome = self._attempt(attempt, champion, judged_artifact=judged_artifact)
            if outcome.kind != "refused":
                return outcome.promoted
            refused = f"The gate refuses version {self.result.challenger}"
            if attempt == attempts:
                self._tell(f"{refused}; no attempt is left of {attempts} (training.attempts)")
                return False
            tests = self.result.decision.tests if self.result.decision else []
            failed = "\n".join(f"  {test.description}" for test in tests if not test.passed)
            self._tell(f"{refused}; attempt {attempt + 1} of {attempts}, with another seed\n{failed}")
        return False

    def _gate_in_words(self) -> str:
        """How many questions the gate asks, and what is too few of them."""
        sample = gate_sample(self._settings, self._policy)
        inside, outside = in_and_out(sampled_questions(sample))
        lines = [
            f"The gate asks {sample_in_words(sample)}, drawn anew for each challenger",
            rehearsal_in_words(sample.source, sample.languages),
            sealed_in_words(sample.source),
        ]
        if lacking := too_few(self._policy.gate, in_scope=inside, out_of_scope=outside):
            lines += [
                *lacking,
                "No challenger can pass so: add questions of the evaluation split, or ease the limits",
            ]
        return "\n".join(lines)

    def _attempt(self, number: int, champion: str, *, judged_artifact: str) -> Improved:
        training = self._settings.training
        training = training.model_copy(update={"seed": training.seed + number - 1})
        run = self._finished(
            improve,
            called=f"improve v{champion}, attempt {number}",
            judged_artifact=judged_artifact,
            sample=gate_sample(self._settings, self._policy),
            champion=champion,
            judge_card=self.result.cards.gate,
            settings=self._settings.model_copy(update={"training": training}),
            evidence=evidence(self._policy, by=self._by, attempt=number),
        )
        outcome = improved(run, open_registry(self._workspace, self._policy.registered_model))
        self.result.decision, self.result.challenger = outcome.decision, outcome.challenger
        look: Look = output(run, "open_look", name="look")
        self.result.seed = look.seed
        self._tell(look.in_words)
        if outcome.kind in ("waiting", "stage"):
            self._settle()
            if not self.result.waiting:
                self.result.ended = f"it was rejected or sent back: python run.py record {outcome.challenger}"
            elif outcome.kind == "stage":
                self._tell("\n".join(self.result.waiting))
            else:
                self._raise_waiting(outcome.challenger)
        return outcome

    def _settle(self) -> None:
        """Complete what persons have approved since, and see what waits."""
        settled = self._sign_off.settle()
        for entry in settled.promoted:
            done = "begins its rollout" if entry.kind == "rollout" else "is the champion now"
            self._tell(f"Version {entry.version} {done}, approved by {entry.by}")
        for wait, why in settled.ended:
            self._tell(f"Version {wait.version} waits for approval no longer: {why}")
        self.result.waiting = [wait.in_words for wait in settled.waiting]
        if (rollout := rollout_of(self._sign_off.entries())) is not None:
            self.result.waiting.append(rollout.in_words)

    def _raise_waiting(self, challenger: str) -> None:
        """Let a person hear of it, by the rules of ``alerts``."""
        now = datetime.now(UTC)
        text = "; ".join(self.result.waiting)
        self._tell(text)
        with Alerts(self._workspace.alerts, self._settings.alerts, policy=self._policy.name) as alerts:
            alerts.event("waiting", f"version {challenger}, {now:%Y-%m-%d %H:%M:%S}", at=now, text=text)
            alerts.deliver(now)

    def _finished(self, pipeline: Pipeline, label: str = "", *, called: str, **parameters: Any) -> PipelineRunResponse:
        run = finished(
            pipeline,
            self._policy,
            workspace=self._workspace,
            called=called,
            cluster=self._settings.cluster,
            **parameters,
        )
        self.result.stages += times(run, label)
        return run

    def _labels_sha256(self) -> str:
        return labels_sha256(self._policy, self._workspace)

    def _champion(self) -> RegisteredModel:
        return find(self._policy.registered_model, CHAMPION, workspace=self._workspace)

    def _sample(self, **wanted: Any) -> Sample:
        source = self._policy.questions
        languages = self._policy.languages
        return Sample(source=source, source_sha256=source_sha256(source), languages=languages, **wanted)
