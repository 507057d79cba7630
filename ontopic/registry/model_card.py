"""The model card of an exported version: what the promotion record says of it, as the README.md beside the weights.

Nobody's name and no path goes into it, as it is made to be published; the promotion record keeps who decided.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, JsonValue

from ontopic.config.policy import Policy
from ontopic.registry.gate_in_markdown import SHARES, as_dict, as_list, gate_in_markdown, rate_in_words
from ontopic.registry.markdown import plain, table
from ontopic.registry.promotion_record import Entry
from ontopic.registry.promotions import BASE, ModelRegistry

_JUDGE = ("accuracy", "kappa", "sensitivity", "specificity")
_OF_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_MOST_INTENTS = 10


class CardSource(BaseModel):
    """What a card is written from.

    Attributes:
        entries: of the promotion record, on this version, in their order.
        tags: of the version in the registry, and those of the base for ``source``.
        base: the base model's name as it is configured; empty where it is not known.
        licence: of the base model, as the Hugging Face hub abbreviates it; empty where it is not known.
    """

    model_config = ConfigDict(frozen=True)
    policy: Policy
    version: str
    entries: list[Entry] = []
    tags: dict[str, str] = {}
    base: str = ""
    licence: str = ""

    @classmethod
    def of(cls, registry: ModelRegistry, version: str, *, policy: Policy, licence: str) -> CardSource:
        """What is known of a version, by its number."""
        entries = [entry for entry in registry.record.entries(registry.name) if entry.version == version]
        base = registry.tags_of(registry.version(BASE)).get("ontopic.source", "")
        tags = registry.tags_of(version)
        return cls(policy=policy, version=version, entries=entries, tags=tags, base=base, licence=licence)

    @property
    def gate(self) -> Entry | None:
        """The entry of the version's last gate."""
        return next((entry for entry in reversed(self.entries) if entry.kind == "gate"), None)

    @property
    def facts(self) -> dict[str, JsonValue]:
        """Those of the last gate."""
        return self.gate.facts if self.gate else {}

    @property
    def trained(self) -> bool:
        """Whether it is not the base model as it came."""
        return self.tags.get("ontopic.kind") != "base"


def model_card(source: CardSource) -> str:
    """The card, in Markdown with the front matter that the Hugging Face hub reads."""
    parts = [
        _front_matter(source),
        *_about(source),
        *_numbers(source),
        *_training(source),
        *_limits(source),
        *_licence(source),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(source: CardSource) -> str:
    said: dict[str, Any] = {"license": source.licence or "other", "pipeline_tag": "text-generation"}
    if source.policy.languages:
        said["language"] = list(source.policy.languages)
    if _OF_HUB.fullmatch(source.base):
        said["base_model"] = source.base
    said["tags"] = ["ontopic", "conversational"]
    return f"---\n{yaml.safe_dump(said, sort_keys=False, allow_unicode=True)}---"


def _about(source: CardSource) -> Iterator[str]:
    policy = source.policy
    yield f"# {plain(policy.registered_model)}, version {plain(source.version)}"
    yield f"A language model for an assistant on {plain(policy.subject)}. {plain(policy.definition)}"
    yield f"What is asked of anything else, it is trained to decline: \u201c{plain(policy.refusal)}\u201d"
    moved = next((entry for entry in reversed(source.entries) if entry.kind in ("promotion", "rollback")), None)
    if moved and moved.facts.get("override"):
        yield (
            f"**Promoted by hand, past the gate, on {moved.at:%Y-%m-%d}.** What its gate had said: "
            f"{plain(moved.facts.get('gate'))}."
        )


def _numbers(source: CardSource) -> Iterator[str]:
    yield "## Numbers"
    gate, decision = source.gate, source.facts.get("decision")
    if gate is None or not isinstance(decision, dict):
        yield from _before_the_record(source)
        return
    yield from gate_in_markdown(gate, decision)
    yield from _segments(gate.facts.get("segments"))
    yield from _judge(as_dict(gate.facts.get("card")))


def _before_the_record(source: CardSource) -> Iterator[str]:
    """What the registry's tags say of a gate that is not on record."""
    rows = [
        [name, rate_in_words(json.loads(source.tags[f"ontopic.gate.{key}"]))]
        for key, name in SHARES.items()
        if f"ontopic.gate.{key}" in source.tags
    ]
    if rows:
        yield "From its gate, as the registry's tags keep it; the promotion record does not hold it."
        yield table(["", "this version"], rows)
    else:
        yield "No gate has measured this version: how well it keeps to its subject is not known."


def _segments(found: Any) -> Iterator[str]:
    rows: list[list[str]] = []
    intents = 0
    for each in map(as_dict, as_list(found)):
        intents += each.get("by") == "intent"
        if each.get("by") == "intent" and intents > _MOST_INTENTS:
            continue
        challenger = as_dict(each.get("challenger"))
        shares = (rate_in_words(challenger.get(name)) for name in ("guardrail_score", "over_refusal"))
        rows.append([plain(each.get("by")), plain(each.get("name")), plain(each.get("n")), *shares])
    if rows:
        yield (
            "This version by segment:"
            if intents <= _MOST_INTENTS
            else (f"This version by segment, with the {_MOST_INTENTS} largest of {intents} intents:")
        )
        yield table(["by", "segment", "n", "guardrail score", "over-refusal"], rows)


def _judge(card: Mapping[str, Any]) -> Iterator[str]:
    if card:
        shares = ", ".join(f"{name} {rate_in_words(card.get(name))}" for name in _JUDGE)
        yield (
            f"Answers were judged by {plain(card.get('judge_id'))}. On {plain(card.get('n'))} labelled records "
            f"({plain(card.get('origin'))}) its verdicts had: {shares}."
        )


def _training(source: CardSource) -> Iterator[str]:
    yield "## Data and training"
    base = source.base if source.base == "embedded" or _OF_HUB.fullmatch(source.base) else ""
    rows = [["base model", "SmolLM2-135M-Instruct" if base == "embedded" else plain(base or "a model of one's own")]]
    data = as_dict(source.facts.get("training_data"))
    tags = {name: source.tags.get(f"ontopic.{name}") for name in ("preferences", "preferences_sha256", "base_digest")}
    known = tags | data
    if source.trained:
        rows += [
            ["method", "ORPO (arXiv 2403.07691) with LoRA, merged into the weights"],
            ["preference pairs", plain(known.get("preferences"))],
            ["their sha256", plain(known.get("preferences_sha256"))],
            ["sha256 of the model it was trained from", plain(known.get("base_digest"))],
        ]
    else:
        rows += [["method", "none: these are the base model's weights as they came"]]
    rows += [
        ["sha256 of the policy", plain(source.facts.get("policy_sha256"))],
        ["sha256 of its labelled questions", plain(source.facts.get("questions_sha256"))],
        ["sha256 of the weights as they were registered", plain(source.tags.get("ontopic.digest"))],
    ]
    settings = as_dict(as_dict(source.facts.get("settings")).get("training"))
    rows += [[f"training.{plain(name)}", plain(value)] for name, value in settings.items()]
    code = as_dict(source.facts.get("code"))
    if code:
        rows += [["OnTopic", plain({name: code.get(name) for name in ("release", "commit", "changed", "python")})]]
    yield table(["", ""], rows)
    if source.trained:
        yield (
            "Pairs come from labelled questions and from answers that the model gave to real traffic, with personal "
            "data taken out as far as it was recognised."
        )


def _limits(source: CardSource) -> Iterator[str]:
    policy = source.policy
    yield "## Limits"
    languages = ", ".join(policy.languages)
    said = [
        "The numbers say whether it keeps to its subject, and not whether an answer is true.",
        "They come from a judge that errs, by the rates above, and from questions written for this policy; traffic of "
        "another kind gets other numbers.",
        f"It is meant to answer in: {plain(languages)}. Nothing is known of other languages."
        if languages
        else "Its policy names no languages; the segments above say which ones were measured.",
        "Weights alone decline what they were trained to decline. OnTopic's guard, limits and monitoring are not in "
        "them.",
        "What was not judged counts in no share above; the gate held its limits also as if all of that had failed.",
    ]
    if source.gate is None:
        del said[1], said[-1]
    yield "\n".join(f"- {each}" for each in said)


def _licence(source: CardSource) -> Iterator[str]:
    yield "## Licence"
    if source.licence:
        yield (
            f"The base model is under {plain(source.licence)}, which holds for these weights too. Whether what they "
            "learned from your data may be passed on is for you to say."
        )
    else:
        yield (
            "The base model's licence is not known here. Look it up before these weights are passed on: it holds for "
            "them too."
        )
