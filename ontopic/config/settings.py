"""The configuration file: one model a section, where each key's docstring is its description in the reference."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ontopic.config.alert_settings import DEFAULT_RULES, AlertSettings, MonitoringLimits
from ontopic.config.cluster_settings import ClusterSettings
from ontopic.config.model_settings import ModelSettings
from ontopic.config.section import Duration, Section
from ontopic.config.training_settings import TrainingSettings
from ontopic.config.watch_settings import PromotionSettings, WatchSettings
from ontopic.config.yaml_file import read_yaml
from ontopic.errors import UserError

GuardMode = Literal["off", "observe", "enforce"]


class LocalJudgeSettings(Section):
    """The embedded judge, learned on the policy's labelled data."""

    kind: Literal["local"]
    """``local``: the embedded judge."""


class EndpointSettings(Section):
    """A model behind an OpenAI-compatible server: OpenAI, vLLM, Ollama, llama.cpp."""

    model: str
    """The model's name on the server."""
    base_url: str | None = None
    """The server's URL, with its ``/v1``, and without what calls append; ``OPENAI_BASE_URL`` where it is not given."""
    api_key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key."""
    concurrency: int = Field(32, ge=1)
    """How many requests are sent at once."""
    timeout_s: float = Field(60.0, gt=0)
    """Seconds until a request counts as failed."""
    max_retries: int = Field(6, ge=0)
    """How often a request is sent again after status 408, 409, 429 or 5xx, a time-out or a lost connection."""
    usd_per_million_prompt_tokens: float | None = Field(None, ge=0)
    """The price of a million prompt tokens in US dollars, for the account and the budget."""
    usd_per_million_completion_tokens: float | None = Field(None, ge=0)
    """The price of a million completion tokens in US dollars, for the account and the budget."""
    budget_usd: float | None = Field(None, gt=0)
    """No request is sent once this many US dollars have been spent."""
    budget_tokens: int | None = Field(None, gt=0)
    """No request is sent once this many tokens have been used."""

    @property
    def is_priced(self) -> bool:
        """Whether the prices of its tokens are known."""
        return None not in (self.usd_per_million_prompt_tokens, self.usd_per_million_completion_tokens)


class LLMJudgeSettings(EndpointSettings):
    """A judge that asks an LLM."""

    kind: Literal["openai"]
    """``openai``: an LLM behind an OpenAI-compatible server."""
    template: str = "rubric"
    """The prompt, by the name of its file in the folder ``judge_prompts``."""
    grading: Literal["single", "custom"] = "single"
    """``single`` for a template that holds the policy's rubric, ``custom`` for one of your own."""
    weighted: bool = False
    """Whether the score is weighted by the probabilities of the verdict's tokens (G-Eval, arXiv 2303.16634), where the
    server gives log-probabilities."""


class DeepEvalJudgeSettings(EndpointSettings):
    """A metric of DeepEval (extra ``deepeval``), asked of an LLM."""

    kind: Literal["deepeval"]
    """``deepeval``: a metric of DeepEval."""
    metric: Literal["geval", "answer_relevancy", "hallucination", "topic_adherence", "faithfulness"] = "geval"
    """``geval`` with the policy's rubric, ``answer_relevancy``, ``hallucination`` against the policy,
    ``topic_adherence`` of the conversation to the policy's topics, or ``faithfulness`` to the context that the request
    gives in its system and tool messages."""
    threshold: float = Field(0.5, ge=0, le=1)
    """The least score that passes."""


class PanelJudgeSettings(Section):
    """Several judges that vote."""

    kind: Literal["panel"]
    """``panel``: several judges that vote."""
    rule: Literal["majority", "unanimous"] = "majority"
    """A record passes where most (``majority``) or all (``unanimous``) of the judges that judged it pass it; more than
    half of the panel must have judged it."""
    judges: list[
        Annotated[LocalJudgeSettings | LLMJudgeSettings | DeepEvalJudgeSettings, Field(discriminator="kind")]
    ] = Field(min_length=2)
    """The judges of the panel, each with the keys of its kind."""


JudgeSettings = LocalJudgeSettings | LLMJudgeSettings | DeepEvalJudgeSettings | PanelJudgeSettings


class SideJudgeSettings(Section):
    """A judge that measures the same traffic beside the one that gates, and decides nothing."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,29}$")
    """What its column in windows and its metrics in MLflow are called."""
    judge: Annotated[JudgeSettings, Field(discriminator="kind")]
    """The judge, with the keys of its kind."""
    sampling_rate: float = Field(1.0, gt=0, le=1)
    """The share that it is given of the records that `monitoring.sampling_rate` has judged."""


class JudgeChoice(Section):
    """A judge as it is chosen, with the prompts that an LLM is asked with, and the guard that answers go through."""

    settings: Annotated[JudgeSettings, Field(discriminator="kind")]
    """The judge's settings."""
    prompts: Path
    """The folder of the prompts."""
    guard_budget: float | None = None
    """The over-refusal that the guard may spend which stands before users; ``None`` where none is enforced."""


class TeacherSettings(EndpointSettings):
    """An LLM that writes chosen answers."""

    wrong_answers: bool = False
    """Whether it also writes, to each question in scope that has a right answer, one that is wrong in a point that
    matters, which training rejects."""


class ServingSettings(Section):
    """Where and how the model is served."""

    port: int = Field(default=3210, ge=0, le=65535)
    """The port of the service; 0 picks a free one."""
    spool: bool = False
    """Whether answers go out while the traffic store cannot be written, their records waiting on this machine's disk;
    without it such a question gets a 503."""
    allowed_origins: list[str] = Field(default=[])
    """Web pages that may call the service (CORS), by their origins, such as ``https://bank.example``; ``*`` is any."""
    guard: GuardMode | None = None
    """Whether a guard stands before the model: ``off``; ``observe``, which decides, records and lets all pass; or
    ``enforce``, which sends the policy's refusal in place of what it stops; without this key it observes where the
    judge is ``local``."""
    guard_on_failure: Literal["open", "closed"] = "open"
    """What becomes of a question or an answer while the guard is down, too slow, or can't judge it: it passes
    (``open``) or gets the refusal (``closed``)."""
    guard_budget: float = Field(default=0.02, ge=0, lt=1)
    """The share of what should pass that the guard may stop: ``calibrate`` chooses its thresholds by this."""
    guard_timeout_s: float = Field(default=1.0, gt=0)
    """Seconds until the guard counts as too slow."""
    held_back: Literal["sentence", "none"] = "none"
    """Of a stream: ``sentence`` sends each one once the guard has passed it; ``none`` sends all at once, and cuts an
    answer that fails at the end of a sentence."""
    backend: Literal["weights", "openai"] = "weights"
    """What answers: ``weights``, the champion's, on this machine; or ``openai``, a model behind an OpenAI-compatible
    server, to which the service is a proxy: then nothing is trained, and `model`, `traffic`, `training` and
    `evaluation` may be left out."""
    base_url: str | None = Field(default=None, validate_default=True)
    """That server's URL, with its ``/v1``."""
    model: str | None = Field(default=None, validate_default=True)
    """The model's name on that server."""
    api_key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds that server's key."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Seconds that server may take for a whole answer or, in a stream, for what comes next."""
    max_tokens: int = Field(default=4096, ge=1, le=1 << 20)
    """The longest answer that is asked of that server, in tokens; a request that names no limit goes on without one,
    and counts so many against its key's limit."""

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/?#@,\s]+", origin):
                raise ValueError(f"{origin!r} is not an origin; give it as https://host or https://host:port")
        return [origin.lower() for origin in origins]

    @field_validator("base_url", "model")
    @classmethod
    def _is_given_where_asked_for(cls, given: str | None, info: ValidationInfo) -> str | None:
        if not given and info.data.get("backend") == "openai":
            raise ValueError("serving.backend is openai, and this key is missing; add it")
        return given

    @property
    def upstream(self) -> EndpointSettings | None:
        """The server that the service is a proxy to; ``None`` where it answers by weights of its own."""
        if self.backend == "weights" or self.model is None:
            return None
        return proxied(self.model, self.base_url, api_key_variable=self.api_key_variable, timeout_s=self.timeout_s)


def proxied(model: str, base_url: str | None, *, api_key_variable: str, timeout_s: float) -> EndpointSettings:
    """The server that a service is a proxy to. It is asked once: the client that waits decides whether to ask again."""
    values = {"model": model, "base_url": base_url, "api_key_variable": api_key_variable, "timeout_s": timeout_s}
    return EndpointSettings.model_validate(values | {"max_retries": 0})


class TrafficSettings(Section):
    """The questions that the loop asks."""

    questions: int = Field(ge=2)
    """How many questions are asked before training, from the training split."""
    fresh_questions: int = Field(ge=2)
    """How many are asked of the promoted model, from the evaluation split and not asked by the gate."""
    in_scope_share: float = Field(0.5, gt=0, lt=1)
    """The share of in-scope questions among them."""
    max_tokens: int = Field(64, ge=1)
    """The longest answer that is asked for, in tokens."""
    concurrency: int = Field(64, ge=1)
    """How many questions are asked at once."""
    seed: int = 0
    """The seed of the sample."""


class MonitoringSettings(Section):
    """How traffic is cut into windows and judged."""

    window_records: int = Field(ge=1)
    """How many records make a window: always in the loop, and in ``watch`` where no ``window`` is given."""
    window: Duration | None = Field(None, gt=timedelta(0))
    """How long a window of ``watch`` is, such as ``1h`` or ``1d``."""
    lateness: Duration = timedelta(minutes=1)
    """How long after its end a window of ``watch`` closes, and a reopened one closes again."""
    sampling_rate: float = Field(1.0, gt=0, le=1)
    """The share of records that ``watch`` has judged; less than 1 for judges that cost money."""
    limits: MonitoringLimits = MonitoringLimits()
    """What traffic is held against besides the policy's limits, for alerts."""


class EvaluationSettings(Section):
    """The gate's questions."""

    questions: int = Field(ge=2)
    """How many questions the gate asks, from the unsealed part of the evaluation split."""
    seed: int = 0
    """What each look draws its questions by, together with the policy and the look's number."""


Named = TypeVar("Named", AlertSettings, SideJudgeSettings)
_UNREAD: dict[str, Any] = {
    "traffic": {"questions": 2, "fresh_questions": 2},
    "training": {
        **{"beta": 0, "learning_rate": 1, "epochs": 1, "batch_size": 1},
        **{"max_rejected_tokens": 1, "save_steps": 1},
    },
    "evaluation": {"questions": 2},
}


class Settings(Section):
    """One configuration file: everything that ``python run.py --config`` sets."""

    policy: Path
    """The policy's file, relative to the configuration file."""
    judge_prompts: Path = Path("judge_prompts")
    """The folder of the LLM judge's prompts, relative to the configuration file."""
    model: ModelSettings
    """The base model."""
    judge: Annotated[JudgeSettings, Field(discriminator="kind")]
    """What judges the answers, by its ``kind``; it alone gates, corrects and alerts."""
    judges_beside: list[SideJudgeSettings] = Field(default=[])
    """Judges that measure the same traffic beside it, one an item, each with a name of its own."""
    teacher: TeacherSettings | None = None
    """An LLM that writes chosen answers; without it they come from the labelled data and the model itself."""
    serving: ServingSettings = ServingSettings()
    """Where and how the model is served."""
    traffic: TrafficSettings
    """The questions that the loop asks."""
    monitoring: MonitoringSettings
    """How traffic is cut into windows and judged."""
    watch: WatchSettings = WatchSettings()
    """When ``watch`` acts by itself."""
    promotion: PromotionSettings = PromotionSettings()
    """Who must agree before a challenger that passed the gate takes the champion's place."""
    alerts: list[AlertSettings] = Field(default=list(DEFAULT_RULES))
    """What raises an alert, one rule an item, each with a name of its own."""
    training: TrainingSettings
    """How the challenger is trained."""
    evaluation: EvaluationSettings
    """The gate's questions."""
    cluster: ClusterSettings | None = None
    """What the steps of a remote ZenML stack run in; without it, as ZenML has it."""

    @model_validator(mode="before")
    @classmethod
    def _need_no_weights_for_a_proxy(cls, given: Any) -> Any:
        """What says how weights are trained is never read where they are another server's."""
        serving = given.get("serving") if isinstance(given, dict) else None
        if not isinstance(serving, dict) or serving.get("backend") != "openai":
            return given
        most = serving.get("max_tokens", ServingSettings.model_fields["max_tokens"].default)
        return _UNREAD | {"model": {"name": "none", "max_new_tokens": most}} | given

    def check_weights(self, what: str) -> None:
        """Make sure that the model's weights are ours to use.

        Args:
            what: needs them.

        Raises:
            UserError: they are another server's.
        """
        if self.serving.backend == "openai":
            raise UserError(
                f"{what} needs weights, and those of {self.serving.model} are another server's (serving.backend is "
                "openai); serve and watch it, or give a configuration with a model of your own"
            )

    @property
    def guard(self) -> GuardMode:
        """Whether a guard stands before what is served."""
        return self.serving.guard or ("observe" if isinstance(self.judge, LocalJudgeSettings) else "off")

    @property
    def judge_choice(self) -> JudgeChoice:
        """The judge with the folder of its prompts, and the guard whose answers it judges where one is enforced."""
        budget = self.serving.guard_budget if self.guard == "enforce" else None
        return JudgeChoice(settings=self.judge, prompts=self.judge_prompts, guard_budget=budget)

    @model_validator(mode="after")
    def _knows_the_prices_that_a_limit_needs(self) -> Settings:
        if self.monitoring.limits.judge_usd is None:
            return self
        for judge in (self.judge, *(beside.judge for beside in self.judges_beside)):
            for each in judge.judges if isinstance(judge, PanelJudgeSettings) else [judge]:
                if isinstance(each, EndpointSettings) and not each.is_priced:
                    raise ValueError(
                        f"monitoring.limits.judge_usd needs the prices of {each.model}: set "
                        "usd_per_million_prompt_tokens and usd_per_million_completion_tokens of that judge"
                    )
        return self

    @field_validator("alerts", "judges_beside")
    @classmethod
    def _have_names_of_their_own(cls, items: list[Named], info: ValidationInfo) -> list[Named]:
        names = [item.name for item in items]
        for name in names:
            if names.count(name) > 1:
                what = "rules" if info.field_name == "alerts" else "judges"
                raise ValueError(f"two {what} have the name {name!r}; give each its own")
        return items


def load_settings(path: Path) -> Settings:
    """Read and check a configuration file.

    Raises:
        UserError: the file is missing, is not YAML, or has an unknown, missing or mistyped key.
    """
    settings = read_yaml(path, Settings)
    # Not ``Path.resolve``, which fails on a link that leads back to itself before anybody says which file that is.
    paths = {
        name: Path(os.path.realpath(path.parent / getattr(settings, name))) for name in ("policy", "judge_prompts")
    }
    return settings.model_copy(update={**paths, "training": settings.training.beside(path)})
