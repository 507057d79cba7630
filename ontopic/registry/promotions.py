"""Who is the champion: the alias in the model registry, who moved it, when and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from ontopic.config.policy import OF_POLICY
from ontopic.errors import UserError
from ontopic.registry.base_version import base_version
from ontopic.registry.descriptions import describe
from ontopic.registry.promotion_record import OF_NO_VERSION, Entry, EntryKind, PromotionRecord
from ontopic.registry.registry_tables import RegistryTables, open_tables
from ontopic.state.workspace import Workspace

CHAMPION, CHALLENGER, BASE = "champion", "challenger", "base"
COMPLETE = "ontopic.complete"
"""The tag that a version gets last when it is registered; one without it is the remains of a crash."""

GATE = "ontopic.gate"
"""The tag of a version with what its last gate said: ``passed`` or ``failed``."""
ROLLOUT, NO_ROLLOUT = "ontopic.rollout", "none"
"""The tag of the registered model with the rollout that is under way (``ontopic.registry.rollouts``)."""
_PROMOTION = "ontopic.promotion."
_HEAD, _LOST_HEAD = "ontopic.record.head", "ontopic.record.lost."
_MOVES = ("promotion", "rollback")
_MOST_BY, _MOST_WHY = 200, 1000


class Promotion(BaseModel):
    """One move of the champion alias: a readable copy, as a tag of the registered model, of the record's entry.

    Attributes:
        before: the champion until then; empty for the first.
        by: who moved it: a person, or the loop; at most 200 characters.
        why: at most 1,000 characters.
        rollback: whether it went back to an earlier champion.
        gate: what the version's last gate said: ``passed``, ``failed`` or ``not run``; empty for a rollback, and where
            a release before wrote the tag.
        override: whether a person promoted it without a passed gate against the champion of that time.
        entry: its number in the promotion record.
    """

    model_config = ConfigDict(frozen=True)
    at: datetime
    version: str
    before: str
    by: str
    why: str
    rollback: bool = False
    gate: str = ""
    override: bool = False
    entry: int | None = None


class Head(BaseModel):
    """The last entry of the promotion record as the registry remembers it, apart from the record's own file."""

    model_config = ConfigDict(frozen=True)
    number: int
    sha256: str


class ModelRegistry:
    """The versions of one registered model, of which one is the champion.

    Args:
        name: of the registered model.
        record: where every move of the champion's alias is written before it is made.
    """

    def __init__(self, name: str, tables: RegistryTables, *, record: PromotionRecord) -> None:
        self.name = name
        self.record = record
        self._tables = tables

    def champion(self) -> str:
        """The champion's version; empty where there is none. No weights are fetched."""
        return self._tables.alias(CHAMPION)

    def version(self, which: str) -> str:
        """The version that ``which`` names: ``champion``, ``challenger``, ``base`` (the base model that was registered
        last) or a version number.

        Raises:
            UserError: there is no such version.
        """
        versions = self.tagged()
        if which == BASE:
            return base_version(self.name, versions)
        found = which if which.isdigit() else self._tables.alias(which)
        if which == CHALLENGER and found == self.champion():  # as releases before left it
            found = ""
        if found not in versions:
            raise self._unknown(f"version or alias {which[:80]!r}")
        return found

    def versions(self) -> list[str]:
        """The versions, from oldest to newest."""
        return list(self.tagged())

    def tagged(self) -> dict[str, dict[str, str]]:
        """The versions with their tags, from oldest to newest."""
        return {version: tags for version, tags in self._tables.versions().items() if COMPLETE in tags}

    def promotions(self) -> list[Promotion]:
        """Every move of the champion alias, the oldest first."""
        moves = (value for key, value in sorted(self._tables.tags().items()) if key.startswith(_PROMOTION))
        return [Promotion.model_validate_json(move) for move in moves]

    def predecessor(self, version: str) -> str | None:
        """Whose place ``version`` took when it was last promoted; ``None`` where it took nobody's."""
        for each in reversed(self.promotions()):
            if each.version == version and not each.rollback:
                return each.before or None
        return None

    def promote(
        self,
        version: str,
        *,
        by: str,
        why: str,
        at: datetime | None = None,
        tags: Mapping[str, str] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> Promotion:
        """Make ``version`` the champion: write its tags first, then the record's entry, then who, when and why as a tag
        of the registered model, then move the alias.

        Args:
            at: now where it is not given.
            tags: of the version.
            facts: for the entry, besides its last gate's. It counts as done by hand unless ``by_hand`` is false.

        Raises:
            UserError: there is no such version, it is the champion, or it goes by a gate against another champion than
                the present one and not by a person's hand.
        """
        self._check(version)
        with self.record.moving():
            self._check(version)  # another may have been first
            self.tag(version, tags or {})
            champion = self.champion()
            said: dict[str, Any] = {"by_hand": True, **self.gate_of(version), **(facts or {})}
            if not said["by_hand"] and said["gate"] == "passed" and said["gate_against"] not in ("", champion):
                raise UserError(
                    f"version {version} of {self.name!r} passed its gate against version {said['gate_against']}, and "
                    f"the champion is version {champion} now; run it again, and a gate against that one decides"
                )
            ungated = (said["gate"], said["gate_against"]) != ("passed", champion)
            said["override"] = bool(said.get("override")) or (bool(said["by_hand"]) and ungated)
            return self._move("promotion", version, by=by, why=why, at=at, facts={"before": champion, **said})

    def roll_back(
        self, by: str, *, why: str, at: datetime | None = None, facts: Mapping[str, Any] | None = None
    ) -> Promotion:
        """Give the alias back to the champion before the present one.

        Args:
            facts: for the record's entry: what shows that the present one is worse. Without them it is done by hand.

        Raises:
            UserError: there was no champion before, or its version is gone.
        """
        with self.record.moving():
            champion = self.champion()
            if not champion:
                raise UserError(f"{self.name!r} has no champion yet; run `python run.py` first, or promote a version")
            if (back := self.predecessor(champion)) is None:
                raise UserError(f"there was no champion before version {champion} of {self.name!r}; promote a version")
            self._check(back)
            said = {"before": champion, "by_hand": facts is None, **(facts or {})}
            return self._move("rollback", back, by=by, why=why, at=at, facts=said)

    def ensure_champion(self, version: str) -> None:
        """Make ``version`` the champion where there is none; a move that was killed before the alias is finished."""
        self.finish()
        champion = self.champion()
        if not champion:
            why = "the base model: there was no champion"
            self.promote(version, by="the loop", why=why, facts={"by_hand": False})
        elif self._tables.alias(CHALLENGER) == champion:  # as releases before left it
            self._tables.delete_alias(CHALLENGER)
        describe(self, *self.versions())  # which releases before left empty

    def enter(
        self,
        kind: EntryKind,
        version: str,
        *,
        by: str,
        why: str,
        facts: Mapping[str, Any],
        at: datetime | None = None,
    ) -> Entry:
        """Append an entry on this model to the promotion record; its hash is kept on the registered model too, so that
        an entry that is taken away later is missed.

        Raises what ``PromotionRecord.add`` raises.
        """
        lost = self._lost_head()
        entry = self.record.add(
            kind, self.name, version=version, by=by[:_MOST_BY], why=why[:_MOST_WHY], facts=facts, at=at
        )
        if lost is not None:  # what verifies the record goes on missing it
            self._tables.set_tag(f"{_LOST_HEAD}{lost.sha256[:16]}", lost.model_dump_json())
        self._tables.set_tag(_HEAD, Head(number=entry.number, sha256=entry.sha256).model_dump_json())
        return entry

    def heads(self) -> list[Head]:
        """Entries that the record must hold: the last one of this model, and any that was missing when it was added."""
        tags = self._tables.tags()
        return [
            Head.model_validate_json(tags[key]) for key in sorted(tags) if key == _HEAD or key.startswith(_LOST_HEAD)
        ]

    def gate_of(self, version: str) -> dict[str, JsonValue]:
        """What the last gate of a version said, as facts of an entry that follows from it."""
        for entry in reversed(self.record.gates(self.name)):
            if entry.version == version:
                return of_gate(entry)
        tags = self.tags_of(version)  # of before the record began
        return {"gate": tags.get(GATE, "not run"), "gate_against": tags.get(f"{GATE}.champion", ""), "gate_entry": None}

    def off_record(self, entries: Sequence[Entry] | None = None) -> str:
        """What the record says that is not so, after a crash or a move by other means; empty where the two agree.

        Args:
            entries: on this model; read from the record where they are not given.
        """
        entries = self.record.entries(self.name) if entries is None else entries
        champion = self.champion()
        last = _last_move(entries)
        if last is not None and last.version != champion:
            where = f"version {champion}" if champion else "no version"
            return (
                f"on record version {last.version} is the champion (entry {last.number}, {last.kind} by {last.by}), "
                f"but the alias is on {where}"
            )
        gate = next((entry for entry in reversed(entries) if entry.kind not in OF_NO_VERSION), None)
        if gate and gate.kind == "gate" and gate.version != champion and gate.version in self.versions():
            return f"a gate of version {gate.version} is on record (entry {gate.number}), and nothing that followed it"
        return ""

    def challenge(self, version: str) -> None:
        """Make ``version`` the challenger, unless it is the champion. A challenger that the gate refuses stays one.

        Raises:
            UserError: there is no such version.
        """
        self.tags_of(version)
        if version != self.champion():
            self._tables.set_alias(CHALLENGER, version)

    def tags_of(self, version: str) -> dict[str, str]:
        """The tags of a version.

        Raises:
            UserError: there is no such version.
        """
        tags = self._tables.versions().get(version)
        if tags is None:
            raise self._unknown(f"version {version[:80]!r}")
        return tags

    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        """Write tags on a version.

        Raises:
            UserError: there is no such version.
        """
        self.tags_of(version)
        for key, value in tags.items():
            self._tables.set_version_tag(version, key, value=value)

    def noted(self, key: str, otherwise: str) -> str:
        """What a tag of the registered model says."""
        return self._tables.tags().get(key, otherwise)

    def note(self, key: str, value: str) -> None:
        """Write a tag on the registered model, which must exist."""
        self._tables.set_tag(key, value)

    def describe(self, text: str, version: str = "") -> None:
        """Write the description of a version, or of the registered model."""
        self._tables.describe(text, version)

    def _move(
        self,
        kind: Literal["promotion", "rollback"],
        version: str,
        *,
        by: str,
        why: str,
        at: datetime | None,
        facts: Mapping[str, Any],
    ) -> Promotion:
        from ontopic.state.lead import check_still_leading  # with SQLAlchemy

        check_still_leading()  # MLflow would not know that another process has taken over
        last, same = self.unfinished(), (kind, version, by[:_MOST_BY], why[:_MOST_WHY])
        if last is not None and (last.kind, last.version, last.by, last.why) == same:
            return self._made(last)
        return self._made(self.enter(kind, version, by=by, why=why, at=at, facts=facts))

    def _made(self, entry: Entry) -> Promotion:
        """The move that an entry says, made."""
        promotion = Promotion(
            at=entry.at,
            version=entry.version,
            before=str(entry.facts.get("before", "")),
            by=entry.by,
            why=entry.why,
            rollback=entry.kind == "rollback",
            gate=str(entry.facts.get("gate", "")),
            override=bool(entry.facts.get("override")),
            entry=entry.number,
        )
        self._tables.set_tag(_tag_of(promotion.at), promotion.model_dump_json())
        if self.noted(ROLLOUT, NO_ROLLOUT) != NO_ROLLOUT:  # it was against the champion until now
            self.note(ROLLOUT, NO_ROLLOUT)
        if _last_move(self.record.entries(self.name)) != entry:  # this process was cut off from its lock
            raise UserError(f"another process has moved the champion of {self.name!r} since; see python run.py record")
        self._tables.set_alias(CHAMPION, entry.version)
        # The challenger has become the champion, now or earlier.
        if self._tables.alias(CHALLENGER) in (entry.version, promotion.before):
            self._tables.delete_alias(CHALLENGER)
        describe(self, entry.version, promotion.before)
        return promotion

    def finish(self) -> Entry | None:
        """Make the last move on record, where it was killed before anything of it was made; returns its entry."""
        if self.unfinished() is None:  # nothing to wait for others for
            return None
        with self.record.moving():
            last = self.unfinished()
            if last is None or _tag_of(last.at) in self._tables.tags() or last.version not in self.versions():
                return None
            self._made(last)
            return last

    def unfinished(self) -> Entry | None:
        """The last move on record, where the alias is still on the champion that it was made against."""
        last = _last_move(self.record.entries(self.name))
        if last is not None and last.version != self.champion() == last.facts.get("before"):
            return last
        return None

    def _lost_head(self) -> Head | None:
        """The head that the registry remembers, where the record does not hold it any more."""
        head = self._tables.tags().get(_HEAD)
        if head is None:
            return None
        remembered = Head.model_validate_json(head)
        held = any(entry.sha256 == remembered.sha256 for entry in self.record.entries())
        return None if held else remembered

    def _check(self, version: str) -> None:
        if version not in self.versions():
            raise self._unknown(f"version {version[:80]!r}")
        if version == self.champion():
            raise UserError(f"version {version} of {self.name!r} is the champion already")

    def _unknown(self, what: str) -> UserError:
        among = ", ".join(self.versions()) or "none; run `python run.py` first"
        return UserError(f"{self.name!r} has no {what}; its versions are: {among}")


def _last_move(entries: Sequence[Entry]) -> Entry | None:
    return next((entry for entry in reversed(entries) if entry.kind in _MOVES), None)


def _tag_of(at: datetime) -> str:
    return f"{_PROMOTION}{at:%Y%m%dT%H%M%S%f}"


def open_registry(workspace: Workspace, name: str) -> ModelRegistry:
    """The registered model ``name`` of a workspace."""
    return ModelRegistry(name, open_tables(workspace, name), record=PromotionRecord.of(workspace))


def of_gate(entry: Entry) -> dict[str, JsonValue]:
    """What an entry that follows from a gate says of it."""
    return {
        "gate": entry.facts.get("gate", "not said"),
        "gate_against": entry.facts.get("against", ""),
        "gate_entry": entry.number,
        "gate_sha256": entry.sha256,
    }


def registered_models(workspace: Workspace) -> list[str]:
    """The registered models of a workspace that are named after policies."""
    return sorted(name for name in open_tables(workspace, "").models() if name.startswith(OF_POLICY))
