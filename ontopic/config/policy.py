"""The policy: what the assistant may talk about, as a YAML file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ontopic.config.settings import read_yaml


class Example(BaseModel):
    """A labelled record that shows the rubric at work; goes into the prompt of an LLM judge."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    verdict: Literal["pass", "fail"]
    why: str = Field(min_length=1)


class Rubric(BaseModel):
    """When an answer passes and when it fails, one sentence an item."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    passes: list[str] = Field(min_length=1)
    fails: list[str] = Field(min_length=1)


class Border(BaseModel):
    """Subjects near the border of the scope, said explicitly."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    in_scope: list[str] = []
    out_of_scope: list[str] = []


class GateLimits(BaseModel):
    """What a challenger must prove. Each limit is held against a bound of a 95 % interval, never a point estimate.

    Attributes:
        guardrail_score: the least lower bound of the guardrail score.
        over_refusal, leak: the greatest upper bound of each.
        improvement: what the lower bound of the paired difference to the champion must exceed.
        quality_loss: by how much answers in scope may have become less like their references: the lower bound of the
            paired difference of cosines must stay above its negative (a non-inferiority test).
        preference_loss: as ``quality_loss``, of what a judge that is an LLM prefers, asked which of the two models'
            answers is the better one: by how much the share of the champion's may exceed that of the challenger's.
        perplexity_ratio: how many times the champion's perplexity on general text the challenger's may be at most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    guardrail_score: float = Field(ge=0, le=1)
    over_refusal: float = Field(ge=0, le=1)
    leak: float = Field(ge=0, le=1)
    improvement: float = Field(ge=-1, le=1)
    quality_loss: float = Field(0.05, ge=0, le=2)
    preference_loss: float = Field(0.1, ge=0, le=1)
    perplexity_ratio: float = Field(2.0, ge=1)


class JudgeBar(BaseModel):
    """What a judge's card must show before its verdicts may promote a model: the least lower bound of each."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    accuracy: float = Field(ge=0, le=1)
    kappa: float = Field(ge=-1, le=1)


class Policy(BaseModel):
    """One subject that an assistant is held to.

    Attributes:
        name: a short name, used in the registry's model name; lower case, digits and hyphens.
        subject: the subject in a word or two, as it stands in a sentence ("banking").
        refusal: the sentence that declines.
        alert_threshold: a window whose guardrail score is under it raises an alert.
        questions, records: labelled data, as ``ontopic.data.labelled.load_rows`` takes it; a file is
            taken relative to the policy's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    subject: str = Field(min_length=1)
    definition: str = Field(min_length=1)
    border: Border = Border()
    rubric: Rubric
    examples: list[Example] = Field(min_length=2)
    refusal: str = Field(min_length=1)
    alert_threshold: float = Field(ge=0, le=1)
    judge_bar: JudgeBar
    gate: GateLimits
    questions: str
    records: str

    @property
    def registered_model(self) -> str:
        """Name of the registered model in MLflow that serves this policy."""
        return f"ontopic-{self.name}"

    @property
    def sha256(self) -> str:
        """sha256 (hex) of the whole policy."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def load_policy(path: Path) -> Policy:
    """Read and check a policy file.

    Raises:
        UserError: the file is missing, no YAML, or has an unknown, missing or mistyped key.
    """
    policy = read_yaml(path, Policy)
    sources = {
        name: str((path.parent / source).resolve())
        for name, source in (("questions", policy.questions), ("records", policy.records))
        if (path.parent / source).is_file()
    }
    return policy.model_copy(update=sources)
