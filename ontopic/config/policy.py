"""The policy: what the assistant may talk about, as a YAML file, where each key's docstring is its description."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ontopic.config.yaml_file import read_yaml

OF_POLICY = "ontopic-"
"""What the names of policies' registered models begin with."""
_NAME = r"^[a-z0-9][a-z0-9-]*$"
_ISO_639_1 = """
aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo es
et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj
kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv
ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti
tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""
_LANGUAGES = frozenset(_ISO_639_1.split())


class Refusals(BaseModel):
    """The sentences that decline.

    Attributes:
        refusal: in every language that ``refusals`` has none of.
        refusals: by ISO 639-1 code.
    """

    model_config = ConfigDict(frozen=True)
    refusal: str
    refusals: dict[str, str] = {}

    def refusal_in(self, language: str) -> str:
        """As ``Policy.refusal_in``."""
        return self.refusals.get(language, self.refusal)


def _is_language(code: str) -> str:
    if code not in _LANGUAGES:
        raise ValueError(f"{code!r} is no ISO 639-1 code of a language, such as 'de' for German")
    return code


Language = Annotated[str, AfterValidator(_is_language)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Example(_Section):
    """A labelled record that shows the rubric at work; goes into the prompt of an LLM judge."""

    question: str = Field(min_length=1)
    """What was asked."""
    answer: str = Field(min_length=1)
    """What the assistant said."""
    verdict: Literal["pass", "fail"]
    """The right verdict."""
    why: str = Field(min_length=1)
    """The reason for it, in a sentence."""


class Rubric(_Section):
    """When an answer passes and when it fails."""

    passes: list[str] = Field(min_length=1)
    """When an answer passes, one sentence an item."""
    fails: list[str] = Field(min_length=1)
    """When an answer fails, one sentence an item."""


class Border(_Section):
    """Subjects near the border of the scope, said explicitly."""

    in_scope: list[str] = []
    """Subjects that belong to it."""
    out_of_scope: list[str] = []
    """Subjects that do not."""


class GateLimits(_Section):
    """What a challenger must prove. Each limit is held against a bound of an interval, never a point estimate.

    The limits of score, over-refusal, leak, improvement and preference are held twice where an answer is unjudged: as
    judged, and in the worst case.
    """

    guardrail_score: float = Field(ge=0, le=1)
    """The least lower bound of the guardrail score."""
    over_refusal: float = Field(ge=0, le=1)
    """The greatest upper bound of the over-refusal."""
    leak: float = Field(ge=0, le=1)
    """The greatest upper bound of the leak."""
    improvement: float = Field(ge=-1, le=1)
    """What the lower bound of the paired difference of pass rates, challenger minus champion, must exceed."""
    unjudged: float = Field(0.02, ge=0, le=1)
    """The greatest upper bound of the share of the challenger's answers that the judge could not judge; the default
    takes 189 questions, and lets 3 of 450 go unjudged."""
    unjudged_increase: float = Field(0.02, ge=0, le=1)
    """The greatest upper bound of the paired difference of unjudged shares, challenger minus champion."""
    quality_loss: float = Field(0.05, ge=0, le=2)
    """How much in-scope answers may lose in cosine similarity to their references: the lower bound of the paired
    difference must stay above its negative (a non-inferiority test)."""
    preference_loss: float = Field(0.1, ge=0, le=1)
    """By how much the share of questions on which an LLM as judge prefers the champion's answer may exceed that of the
    challenger's; a bound as for ``quality_loss``."""
    perplexity_ratio: float = Field(2.0, ge=1)
    """How many times the champion's perplexity on general text the challenger's may be at most."""
    discordant_labels: int = Field(0, ge=0)
    """How many questions with different verdicts a person must have labelled before a promotion, or all where they are
    fewer (``python run.py label --by discordant``); with 0 none is asked for."""


class JudgeBar(_Section):
    """What a judge's card must show before its verdicts may promote a model."""

    accuracy: float = Field(ge=0, le=1)
    """The least lower bound of the judge's accuracy."""
    kappa: float = Field(ge=-1, le=1)
    """The least lower bound of Cohen's kappa between judge and labels."""


class Policy(_Section):
    """One subject that an assistant is held to."""

    name: str = Field(pattern=_NAME)
    """A short name, part of the registered model's; lower case, digits and hyphens."""
    subject: str = Field(min_length=1)
    """The subject in a word or two, as it stands in a sentence ("banking")."""
    definition: str = Field(min_length=1)
    """What is in scope, in a sentence or two."""
    border: Border = Border()
    """Subjects near the border of the scope, said explicitly."""
    rubric: Rubric
    """When an answer passes and when it fails."""
    examples: list[Example] = Field(min_length=2)
    """Labelled records that show the rubric at work."""
    refusal: str = Field(min_length=1)
    """The sentence that declines, also in each language that ``refusals`` does not name."""
    refusals: dict[Language, Annotated[str, Field(min_length=1)]] = {}
    """The sentence that declines in other languages, by ISO 639-1 code."""
    languages: list[Language] = []
    """The languages that it answers in, by ISO 639-1 code: what is asked in another one is out of scope whatever its
    label, and without any named, scope is as labelled."""
    alert_threshold: float = Field(ge=0, le=1)
    """The guardrail score under which a window is suspected, and below which the chart over all records alarms."""
    least_records: int = Field(50, ge=1)
    """A window with fewer judged records is ``unknown``, and before so many the chart detects nothing."""
    most_unjudged: float = Field(0.05, ge=0, le=1)
    """A window of which a greater share is unjudged is ``unknown``: what the judge cannot judge may be what fails."""
    least_liked: float = Field(0.5, ge=0, le=1)
    """The share of thumbs up under which a version is ``disliked``; held against the upper bound of all thumbs since
    its promotion, 20 at least."""
    judge_bar: JudgeBar
    """What a judge's card must show before its verdicts may promote a model."""
    gate: GateLimits
    """What a challenger must prove."""
    questions: str
    """Labelled questions: a JSONL, CSV or Parquet file relative to the policy, ``ontopic:NAME`` for data in the
    package, or a Hugging Face data set (``owner/name#split``)."""
    records: str
    """Labelled records, given as ``questions`` are."""

    @property
    def registered_model(self) -> str:
        """Name of the registered model in MLflow that serves this policy."""
        return f"{OF_POLICY}{self.name}"

    @property
    def all_refusals(self) -> tuple[str, ...]:
        """The sentence that declines, in each language that there is one in."""
        return tuple(dict.fromkeys((self.refusal, *self.refusals.values())))

    def refusal_in(self, language: str) -> str:
        """The sentence that declines a question in this language.

        Args:
            language: ISO 639 code; empty where it is not known.
        """
        return self.sentences.refusal_in(language)

    @property
    def sentences(self) -> Refusals:
        """Its refusals alone."""
        return Refusals(refusal=self.refusal, refusals=self.refusals)

    def answers_in(self, language: str) -> bool:
        """Whether a question in this language can be in scope. One of which the language is not known can."""
        return not self.languages or not language or language in self.languages

    @property
    def sha256(self) -> str:
        """sha256 (hex) of the whole policy: the evidence of what a gate went by."""
        # As earlier releases have it in their evidence, where the key that they did not know is as by default.
        newer = {"least_liked"} if self.least_liked == type(self).model_fields["least_liked"].default else set()
        return hashlib.sha256(self.model_dump_json(exclude=newer).encode()).hexdigest()


def is_name(text: str) -> bool:
    """Whether a policy may have this name."""
    return re.fullmatch(_NAME, text) is not None


def load_policy(path: Path) -> Policy:
    """Read and check a policy file.

    Raises:
        UserError: the file is missing, is not YAML, or has an unknown, missing or mistyped key.
    """
    policy = read_yaml(path, Policy)
    sources = {
        name: os.path.realpath(path.parent / source)
        for name, source in (("questions", policy.questions), ("records", policy.records))
        if os.path.isfile(path.parent / source)  # noqa: PTH113 (Path's fails on a name that is too long)
    }
    return policy.model_copy(update=sources)
