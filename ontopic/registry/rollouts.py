"""A rollout: a challenger that passed the gate takes the champion's place by stages, or answers unseen at first.

How far it is stands in the promotion record, and nowhere else. What services must know of it, on whichever machine
they are, is a tag of the registered model, which follows the record.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ontopic.config.watch_settings import SHADOW, PromotionSettings
from ontopic.registry.promotion_record import Entry
from ontopic.registry.promotions import NO_ROLLOUT, ROLLOUT, ModelRegistry

Outcome = Literal["begun", "passed", "returned", "ended"]
_OF_STAGE = ("rollout", "outcome", "stage")  # facts of its entries that are none of the promotion
_SHOWN = ("difference", "low", "high", "wins", "losses", "n")


class Rollout(BaseModel):
    """A rollout as it stands.

    Attributes:
        version, champion: the challenger, and in whose place it comes.
        stages: the percentage of the conversations that it answers in each; ``SHADOW`` where it answers unseen.
        stage: the index of the present one. The last, of all conversations, begins with the promotion.
        since: when the present stage began.
        key: what conversations are hashed with: the sha256 of the entry that began the rollout, which no client knows.
            It is the same in all stages, so that a conversation that the challenger answers stays with it.
    """

    model_config = ConfigDict(frozen=True)
    version: str
    champion: str
    stages: tuple[int, ...]
    stage: int
    since: datetime
    key: str = ""

    @property
    def share(self) -> int:
        """The percentage of the conversations that it answers now."""
        return self.stages[self.stage]

    @property
    def name(self) -> str:
        """The present stage's, as records say it."""
        return stage_name(self.share)

    @property
    def part(self) -> float:
        """What the present stage's test gets of the level that all stages share, the one after the promotion among
        them."""
        return 1 / len(self.stages)

    @property
    def is_last(self) -> bool:
        """Whether there is nothing to do but to promote it."""
        return self.stage == len(self.stages) - 1

    def answers(self, conversation: str) -> bool:
        """Whether it is the challenger that answers this conversation: the same on every machine and at every call,
        and where a smaller share has it, a larger has it too."""
        digest = hmac.digest(self.key.encode(), conversation.encode("utf-8", "surrogatepass"), "sha256")
        return int.from_bytes(digest[:8]) < self.share / 100 * 2**64

    @property
    def in_words(self) -> str:
        """Where it stands, and who takes it on."""
        seen = (
            "answers unseen, in its shadow stage" if self.share == SHADOW else f"answers {self.name} of conversations"
        )
        return (
            f"version {self.version} {seen}, since {self.since:%Y-%m-%d %H:%M} UTC (stage {self.stage + 1} of "
            f"{len(self.stages)}, against version {self.champion}); `python run.py watch` takes it on or back"
        )


def stage_name(share: int) -> str:
    """A stage as it is called: ``shadow``, or its percentage."""
    return "shadow" if share == SHADOW else f"{share} %"


def promote_or_roll_out(
    registry: ModelRegistry,
    version: str,
    *,
    settings: PromotionSettings,
    by: str,
    why: str,
    facts: Mapping[str, Any],
    at: datetime | None = None,
) -> None:
    """Make a version that may be promoted the champion, or begin its rollout where the settings ask for one.

    Args:
        by, why, facts, at: as ``ModelRegistry.promote`` takes them; a promotion at the rollout's end has these facts.

    Raises:
        UserError: there is no such version, or it is the champion.
    """
    if len(settings.stages) == 1:
        registry.promote(version, by=by, why=why, at=at, facts=facts)
        return
    champion = registry.champion()
    told = {"champion": champion, "stages": list(settings.stages), "stage": 0}
    entered = {**registry.gate_of(version), **facts, "rollout": told, "outcome": "begun"}
    registry.enter("rollout", version, by=by, why=f"{why}; its rollout begins", facts=entered, at=at)
    show(registry, rollout_of(registry.record.entries(registry.name)))


def go_on(registry: ModelRegistry, rollout: Rollout, *, by: str, why: str, at: datetime, stage: dict[str, Any]) -> None:
    """Enter that a stage was passed, and begin the next.

    Args:
        stage: what its test found.
    """
    told = {"champion": rollout.champion, "stages": list(rollout.stages), "stage": rollout.stage + 1}
    facts = {"rollout": told | {"key": rollout.key}, "outcome": "passed", "stage": stage}
    registry.enter("rollout", rollout.version, by=by, why=why, facts=facts, at=at)
    show(registry, rollout_of(registry.record.entries(registry.name)))


def end(
    registry: ModelRegistry,
    rollout: Rollout,
    *,
    outcome: Literal["returned", "ended"],
    by: str,
    why: str,
    at: datetime,
    stage: Mapping[str, Any] | None = None,
) -> None:
    """Enter that a rollout is over without a promotion; the champion answers all again.

    Args:
        stage: what showed the challenger to be worse.
    """
    facts = {"outcome": outcome, "stage": {"share": rollout.share, **(stage or {})}}
    registry.enter("rollout", rollout.version, by=by, why=why, facts=facts, at=at)
    show(registry, None)


def complete(registry: ModelRegistry, rollout: Rollout, *, by: str, at: datetime) -> None:
    """Promote a challenger that has passed its stages; the entry says how each of them went."""
    own = [entry for entry in registry.record.entries(registry.name) if entry.kind == "rollout"]
    begun = next(entry for entry in own if entry.sha256 == rollout.key)
    facts = {name: value for name, value in begun.facts.items() if name not in _OF_STAGE}
    passed = [entry for entry in own if _key(entry) == rollout.key and entry.facts.get("outcome") == "passed"]
    facts["rollout"] = {"part": rollout.part, "stages": [_summary(entry) for entry in passed]}
    said = ", ".join(stage_name(share) for share in rollout.stages[:-1])
    registry.promote(rollout.version, by=by, why=f"passed the stages of its rollout: {said}", at=at, facts=facts)


def rollout_of(entries: Sequence[Entry]) -> Rollout | None:
    """The rollout that is under way by the promotion record; ``None`` where none is.

    Args:
        entries: of one registered model, in their order.
    """
    last = next((entry for entry in reversed(entries) if entry.kind in ("rollout", "promotion", "rollback")), None)
    if last is None or last.kind != "rollout" or not isinstance(told := last.facts.get("rollout"), dict):
        return None
    return Rollout.model_validate({"key": last.sha256, **told, "version": last.version, "since": last.at})


def has_begun(registry: ModelRegistry, gate: Entry) -> bool:
    """Whether the rollout has begun of what this gate let pass."""
    return any(
        entry.kind == "rollout" and entry.facts.get("gate_sha256") == gate.sha256
        for entry in registry.record.entries(registry.name)
    )


def part_of(entry: Entry | None) -> float:
    """What the canary gets of its level after this promotion: all of it, but for one at a rollout's end."""
    told = entry.facts.get("rollout") if entry else None
    part = told.get("part") if isinstance(told, dict) else None
    return part if isinstance(part, float) else 1.0


def show(registry: ModelRegistry, rollout: Rollout | None) -> None:
    """Let services know of a rollout, or that there is none."""
    value = NO_ROLLOUT if rollout is None else rollout.model_dump_json()
    if registry.noted(ROLLOUT, NO_ROLLOUT) != value:
        registry.note(ROLLOUT, value)


def shown(registry: ModelRegistry, champion: str) -> Rollout | None:
    """The rollout against this champion that services know of; ``None`` where there is none, or a newer release's."""
    try:
        rollout = Rollout.model_validate_json(registry.noted(ROLLOUT, NO_ROLLOUT))
    except ValidationError:
        return None
    return rollout if rollout.champion == champion and not rollout.is_last else None


def _key(entry: Entry) -> str:
    told = entry.facts.get("rollout")
    return str(told.get("key", "")) if isinstance(told, dict) else ""


def _summary(entry: Entry) -> dict[str, Any]:
    """How a stage went, by the entry that it was passed with."""
    stage: Any = entry.facts.get("stage") or {}
    found = stage.get("canary", {})
    compared, look = found.get("comparison", {}), found.get("look", {})
    told = {"share": stage.get("share"), "since": stage.get("since"), "until": entry.at.isoformat()}
    told |= {name: compared.get(name) for name in _SHOWN} | {"detectable": found.get("detectable")}
    return told | {"level": look.get("level"), "looks": found.get("looks"), "entry": entry.number}
