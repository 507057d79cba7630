"""Configuration files: read, checked against a schema, and reported by file and key when wrong."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from ontopic.config.durations import duration
from ontopic.errors import UserError


def _duration(given: object) -> object:
    try:
        return duration(given) if isinstance(given, str) else given
    except UserError as error:
        raise ValueError(str(error)) from None  # pydantic adds the key


Duration = Annotated[timedelta, BeforeValidator(_duration), Field(ge=timedelta(0))]
Precision = Literal["auto", "float32", "bfloat16", "nf4"]
Schema = TypeVar("Schema", bound=BaseModel)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(_Section):
    """The base model.

    Attributes:
        name: ``embedded``, a Hugging Face id, or a local folder.
        precision: of the weights: ``bfloat16``; ``float32``; ``nf4``, in 4 bits with bitsandbytes, which needs CUDA; or
            ``auto``, bfloat16 where the GPU or the CPU multiplies it natively and float32 elsewhere.
        max_new_tokens: the longest answer, in tokens.
        batch_size: how many answers are generated together.
    """

    name: str
    precision: Precision = "auto"
    max_new_tokens: int = Field(64, ge=1)
    batch_size: int = Field(128, ge=1)


class LocalJudgeSettings(_Section):
    """The embedded judge, learned on the policy's labelled data."""

    kind: Literal["local"]


class EndpointSettings(_Section):
    """A model behind an OpenAI-compatible server: OpenAI, vLLM, Ollama, llama.cpp.

    Attributes:
        base_url: the server, with its ``/v1``; where none is given, ``OPENAI_BASE_URL``.
        api_key_variable: the environment variable that holds the key.
        concurrency: requests under way at once.
        timeout_s: seconds until a request counts as failed.
        max_retries: how often a request is sent again after 408, 409, 429, 5xx, a time-out or a lost connection.
        usd_per_million_prompt_tokens, usd_per_million_completion_tokens: the price, for the account.
        budget_usd, budget_tokens: no request is sent once so much has been used.
    """

    model: str
    base_url: str | None = None
    api_key_variable: str = "OPENAI_API_KEY"
    concurrency: int = Field(32, ge=1)
    timeout_s: float = Field(60.0, gt=0)
    max_retries: int = Field(6, ge=0)
    usd_per_million_prompt_tokens: float | None = Field(None, ge=0)
    usd_per_million_completion_tokens: float | None = Field(None, ge=0)
    budget_usd: float | None = Field(None, gt=0)
    budget_tokens: int | None = Field(None, gt=0)


class LLMJudgeSettings(EndpointSettings):
    """A judge that asks an LLM.

    Attributes:
        template: which prompt of the folder ``judge_prompts`` it is asked with.
        grading: ``single`` for a template that holds the policy's rubric, ``custom`` for one of the user's own.
        weighted: weigh the verdicts by the probabilities of their tokens (G-Eval, arXiv 2303.16634) where the server
            gives log-probabilities.
    """

    kind: Literal["openai"]
    template: str = "rubric"
    grading: Literal["single", "custom"] = "single"
    weighted: bool = False


class DeepEvalJudgeSettings(EndpointSettings):
    """A metric of DeepEval (extra ``deepeval``), asked of an LLM.

    Attributes:
        metric: ``geval`` with the policy's rubric, ``answer_relevancy``, or ``hallucination`` against the policy.
        threshold: the least score that passes.
    """

    kind: Literal["deepeval"]
    metric: Literal["geval", "answer_relevancy", "hallucination"] = "geval"
    threshold: float = Field(0.5, ge=0, le=1)


class PanelJudgeSettings(_Section):
    """Several judges that vote.

    Attributes:
        rule: a record passes where most (``majority``) or all (``unanimous``) of those that judged it pass it; more
            than half of the judges must have judged it.
    """

    kind: Literal["panel"]
    rule: Literal["majority", "unanimous"] = "majority"
    judges: list[
        Annotated[LocalJudgeSettings | LLMJudgeSettings | DeepEvalJudgeSettings, Field(discriminator="kind")]
    ] = Field(min_length=2)


JudgeSettings = LocalJudgeSettings | LLMJudgeSettings | DeepEvalJudgeSettings | PanelJudgeSettings


class JudgeChoice(_Section):
    """A judge as it is chosen: its settings, and the folder of the prompts that an LLM is asked with."""

    settings: Annotated[JudgeSettings, Field(discriminator="kind")]
    prompts: Path


class TeacherSettings(EndpointSettings):
    """An LLM that writes chosen answers."""


class ServingSettings(_Section):
    """Where and how the model is served.

    Attributes:
        port: 0 picks a free one.
        spool: whether, while the traffic store can't be written, answers go out and their records wait on this
            machine's disk; else such a question gets a 503.
    """

    port: int = Field(default=3210, ge=0, le=65535)
    spool: bool = False


class TrafficSettings(_Section):
    """The questions that the loop asks.

    Attributes:
        questions: how many before training, from the training split.
        fresh_questions: how many of the promoted model, from the evaluation split and not asked by the gate.
        in_scope_share: share of in-scope questions among them.
        concurrency: requests under way at once.
        max_tokens: the longest answer asked for.
        seed: of the sample.
    """

    questions: int = Field(ge=2)
    fresh_questions: int = Field(ge=2)
    in_scope_share: float = Field(0.5, gt=0, lt=1)
    max_tokens: int = Field(64, ge=1)
    concurrency: int = Field(64, ge=1)
    seed: int = 0


class MonitoringSettings(_Section):
    """How traffic is cut into windows and judged.

    Attributes:
        window_records: records a window. ``watch`` cuts by it where no ``window`` is given; the loop always does.
        window: how long a window of ``watch`` is, such as 1h or 1d.
        lateness: how long after its end a window of ``watch`` closes, and a reopened one closes again.
        sampling_rate: the share of records that ``watch`` has judged; less than 1 for judges that cost money.
    """

    window_records: int = Field(ge=1)
    window: Duration | None = None
    lateness: Duration = timedelta(minutes=1)
    sampling_rate: float = Field(1.0, gt=0, le=1)


class WatchSettings(_Section):
    """When ``watch`` acts by itself.

    Attributes:
        cooldown: how long nothing is retrained after a retraining, a promotion or a rollback.
        retrainings_a_day: the most in 24 hours.
        canary: how long after a promotion the new champion is held against its predecessor.
        training_records: how many of the newest judged records of the champion it learns from.
    """

    cooldown: Duration = timedelta(hours=12)
    retrainings_a_day: int = Field(default=2, ge=0)
    canary: Duration = timedelta(hours=24)
    training_records: int = Field(default=1000, ge=2)


AlertEvent = Literal["suspected", "detected", "unjudged", "refused", "promoted", "rolled_back", "failed"]
Severity = Literal["info", "warning", "critical"]
Reset = Literal["auto", "manual"]


class AlertSettings(_Section):
    """When an alert is raised, how grave it is, what ends it and who hears of it.

    Attributes:
        name: tells the rule from the others; an alert that is open belongs to it by this name.
        events: what counts. Of a window: ``suspected`` (its score is under the threshold), ``detected`` (its whole
            interval is), ``unjudged`` (the judge could not judge enough of it). Of the loop: ``refused`` (the gate
            refused a challenger), ``promoted``, ``rolled_back``, ``failed``.
        count: how many such events raise it.
        period: within which they must come, such as ``24h`` or ``7d``; no limit where none is given.
        reset: ``auto``: a healthy window closes what a window raised, and what the loop raised is closed at once;
            ``manual``: it stays open until ``python run.py alerts close ID``.
        notify: Apprise URLs, or ``env:NAME`` for one that is in an environment variable.
    """

    name: str = Field(min_length=1, max_length=60)
    events: list[AlertEvent] = Field(min_length=1)
    count: int = Field(default=1, ge=1)
    period: Duration | None = Field(default=None, gt=timedelta(0))
    severity: Severity = "warning"
    reset: Reset = "auto"
    notify: list[str] = Field(default=[], repr=False)  # a URL holds secrets


class TrainingSettings(_Section):
    """ORPO with LoRA.

    Attributes:
        in_scope_share: share of in-scope pairs; the larger kind is cut down to it.
        cover: so many pairs more, from labelled questions that were not asked, spread over all intents; then no pair of
            the traffic is dropped.
        least_certainty: a record without a label gives a pair only where the judge's score is at least half of this
            away from 0.5.
        best_of: for a question in scope that neither a teacher nor we wrote an answer to, the best of so many of the
            model's own is chosen, by the judge; 1 takes that of the traffic.
        beta: weight of the odds-ratio loss (lambda in the ORPO paper, arXiv 2403.07691); 0 is fine-tuning on the chosen
            answers alone.
        batch_size: preference pairs a step.
        max_rejected_tokens: rejected answers are cut this many tokens after they depart from the chosen one.
        lora_modules: names of the linear layers that get an adapter, or ``all-linear``.
        lora_first_block: of the model's blocks, the first that gets one; those before it need no way back.
        max_steps: stop after this many steps; -1 for all epochs.
        save_steps: steps between checkpoints.
        early_stopping: with a part of the pairs held out and the margin between their answers measured at each
            checkpoint, stop after so many without a better one, and keep the best; 0 trains on all pairs to the end.
        processes: how many train together, a GPU each; ``batch_size`` is each one's.
        attempts: how often the loop trains at most, each time with the next seed, until a challenger passes the gate.
        fully_sharded: share the weights out among them (FSDP) in place of a copy each (DDP).
    """

    in_scope_share: float = Field(0.5, gt=0, lt=1)
    cover: int = Field(0, ge=0)
    least_certainty: float = Field(0.1, ge=0, le=1)
    best_of: int = Field(4, ge=1)
    beta: float = Field(ge=0)
    learning_rate: float = Field(gt=0)
    epochs: float = Field(gt=0)
    batch_size: int = Field(ge=1)
    gradient_accumulation: int = Field(1, ge=1)
    max_rejected_tokens: int = Field(ge=1)
    lora_rank: int = Field(16, ge=1)
    lora_alpha: int = Field(32, ge=1)
    lora_modules: list[str] | Literal["all-linear"] = "all-linear"
    lora_first_block: int = Field(0, ge=0)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    max_steps: int = -1
    save_steps: int = Field(ge=1)
    optimizer: str = "adamw_torch_fused"
    gradient_checkpointing: bool = False
    early_stopping: int = Field(0, ge=0)
    processes: int = Field(1, ge=1)
    fully_sharded: bool = False
    attempts: int = Field(2, ge=1)
    seed: int = 0


class EvaluationSettings(_Section):
    """The gate's questions: how many, from the evaluation split, and the seed of the sample."""

    questions: int = Field(ge=2)
    seed: int = 0


class Settings(_Section):
    """One configuration file: everything that ``python run.py --config`` sets.

    Attributes:
        policy: the policy's file, relative to the configuration file.
        judge_prompts: folder of the LLM judge's templates, relative to the configuration file.
        alerts: one rule an item, each with a name of its own.
    """

    policy: Path
    judge_prompts: Path = Path("judge_prompts")
    model: ModelSettings
    judge: Annotated[JudgeSettings, Field(discriminator="kind")]
    teacher: TeacherSettings | None = None
    serving: ServingSettings = ServingSettings()
    traffic: TrafficSettings
    monitoring: MonitoringSettings
    watch: WatchSettings = WatchSettings()
    alerts: list[AlertSettings] = [AlertSettings(name="off topic", events=["detected"], severity="critical")]
    training: TrainingSettings
    evaluation: EvaluationSettings

    @property
    def judge_choice(self) -> JudgeChoice:
        """The judge with the folder of its prompts."""
        return JudgeChoice(settings=self.judge, prompts=self.judge_prompts)

    @field_validator("alerts")
    @classmethod
    def _have_names_of_their_own(cls, alerts: list[AlertSettings]) -> list[AlertSettings]:
        names = [rule.name for rule in alerts]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two rules have the name {name!r}; give each its own")
        return alerts


def load_settings(path: Path) -> Settings:
    """Read and check a configuration file.

    Raises:
        UserError: the file is missing, no YAML, or has an unknown, missing or mistyped key.
    """
    settings = read_yaml(path, Settings)
    paths = {name: (path.parent / getattr(settings, name)).resolve() for name in ("policy", "judge_prompts")}
    return settings.model_copy(update=paths)


def read_yaml(path: Path, schema: type[Schema]) -> Schema:
    """Read a YAML file as ``schema``.

    Raises:
        UserError: naming the file, the key, and, where a key is unknown, the valid ones.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give an existing YAML file") from error
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: the 13th month, endless numbers
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(
            f"{path}{line}: is not valid YAML ({getattr(error, 'problem', error)}); mend that line"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold keys and values; the valid keys are {_keys(schema)}")
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise UserError("; ".join(_sentence(path, schema, problem=problem) for problem in error.errors())) from None


def _sentence(path: Path, schema: type[BaseModel], *, problem: Any) -> str:
    location = [part for part in problem["loc"] if part not in ("local", "openai", "deepeval", "panel")]
    key = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        section = _section(schema, problem["loc"][:-1])
        valid = _keys(section) if section else "in docs/configuration.md"
        return f"{path}: unknown key {key!r}; the valid keys there are {valid}"
    if problem["type"] == "missing":
        return f"{path}: the key {key!r} is missing; add it"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":  # a sentence of ours, that says what was given
        return f"{path}: {key!r} is wrong: {message}"
    got = "" if "notify" in location else f" (got {str(problem['input'])[:60]!r})"  # its URLs hold secrets
    return f"{path}: {key!r} is wrong: {message.lower()}{got}"


def _section(schema: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The schema of the section at ``location``, where tags of a union stand among the keys."""
    candidates = [schema]
    for part in location:
        if isinstance(part, int):  # an item of a list: its schema is a candidate already
            continue
        fields = [c.model_fields[part] for c in candidates if part in c.model_fields]
        if fields:
            candidates = _models(fields[0].annotation)
        else:
            kinds = [(c, c.model_fields.get("kind")) for c in candidates]
            candidates = [c for c, kind in kinds if kind and part in get_args(kind.annotation)]
    return candidates[0] if candidates else None


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _keys(schema: type[BaseModel]) -> str:
    return ", ".join(schema.model_fields)
