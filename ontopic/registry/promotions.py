"""Who is the champion: the alias in the model registry, who moved it, when and why."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from ontopic.config.policy import OF_POLICY
from ontopic.errors import UserError
from ontopic.registry import mlflow_file
from ontopic.state.workspace import Workspace

CHAMPION, CHALLENGER, BASE = "champion", "challenger", "base"
COMPLETE = "ontopic.complete"
"""The tag that a version gets last when it is registered; one without it is the remains of a crash."""

_PROMOTION = "ontopic.promotion."
_MOST_BY, _MOST_WHY = 200, 1000


class Promotion(BaseModel):
    """One move of the champion alias, kept as a tag of the registered model, for an auditor.

    Attributes:
        before: the champion until then; empty for the first.
        by: who moved it: a person, or the loop; at most 200 characters.
        why: at most 1,000 characters.
        rollback: whether it went back to an earlier champion.
    """

    model_config = ConfigDict(frozen=True)
    at: datetime
    version: str
    before: str
    by: str
    why: str
    rollback: bool = False


class RegistryTables(Protocol):
    """What is read and written of one registered model. Where there is no such model, there is nothing to read."""

    def models(self) -> list[str]:
        """The names of all registered models; prompts, which MLflow keeps among them, are none."""

    def versions(self) -> dict[str, dict[str, str]]:
        """The tags of each version, the versions from oldest to newest."""

    def alias(self, alias: str) -> str:
        """The version that bears an alias; empty where there is none."""

    def set_alias(self, alias: str, version: str) -> None:
        """Give an alias to a version, which must exist."""

    def delete_alias(self, alias: str) -> None:
        """Take an alias from whichever version bears it."""

    def tags(self) -> dict[str, str]:
        """The tags of the registered model."""

    def set_tag(self, key: str, value: str) -> None:
        """Write a tag on the registered model, which must exist."""

    def set_version_tag(self, version: str, key: str, *, value: str) -> None:
        """Write a tag on a version, which must exist."""


class ModelRegistry:
    """The versions of one registered model, of which one is the champion.

    Args:
        name: of the registered model.
    """

    def __init__(self, name: str, tables: RegistryTables) -> None:
        self.name = name
        self._tables = tables

    def champion(self) -> str:
        """The champion's version; empty where there is none. No weights are fetched."""
        return self._tables.alias(CHAMPION)

    def version(self, which: str) -> str:
        """The version that ``which`` names: ``champion``, ``challenger``, ``base`` (the oldest) or a version number.

        Raises:
            UserError: there is no such version.
        """
        versions = self.versions()
        if which == BASE and not versions:
            raise UserError(f"no model is registered as {self.name!r} yet; run `python run.py` first")
        if which == BASE:
            return versions[0]
        found = which if which.isdigit() else self._tables.alias(which)
        if which == CHALLENGER and found == self.champion():  # as releases before left it
            found = ""
        if found not in versions:
            raise self._unknown(f"version or alias {which[:80]!r}")
        return found

    def versions(self) -> list[str]:
        """The versions, from oldest to newest."""
        return [version for version, tags in self._tables.versions().items() if COMPLETE in tags]

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
        self, version: str, *, by: str, why: str, at: datetime | None = None, tags: Mapping[str, str] | None = None
    ) -> Promotion:
        """Make ``version`` the champion: write the evidence as tags first, then who, when and why, then move the alias.

        Args:
            at: now where it is not given.
            tags: of the version.

        Raises:
            UserError: there is no such version, or it is the champion.
        """
        self._check(version)
        self.tag(version, tags or {})
        return self._move(version, self.champion(), by=by, why=why, at=at)

    def roll_back(
        self, by: str, *, why: str, at: datetime | None = None, facts: Mapping[str, Any] | None = None
    ) -> Promotion:
        """Give the alias back to the champion before the present one.

        Args:
            facts: for the promotion record's entry: what shows that the present one is worse.

        Raises:
            UserError: there was no champion before, or its version is gone.
        """
        champion = self.champion()
        if not champion:
            raise UserError(f"{self.name!r} has no champion yet; run `python run.py` first, or promote a version")
        back = self.predecessor(champion)
        if back is None:
            raise UserError(f"there was no champion before version {champion} of {self.name!r}; promote a version")
        self._check(back)
        return self._move(back, champion, by=by, why=why, at=at, rollback=True)

    def ensure_champion(self, version: str) -> None:
        """Make ``version`` the champion where there is none."""
        champion = self.champion()
        if not champion:
            self.promote(version, by="the loop", why="the base model: there was no champion")
        elif self._tables.alias(CHALLENGER) == champion:  # as releases before left it
            self._tables.delete_alias(CHALLENGER)

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

    def _move(
        self, version: str, before: str, *, by: str, why: str, at: datetime | None, rollback: bool = False
    ) -> Promotion:
        promotion = Promotion(
            at=at or datetime.now(UTC),
            version=version,
            before=before,
            by=by[:_MOST_BY],
            why=why[:_MOST_WHY],
            rollback=rollback,
        )
        self._tables.set_tag(f"{_PROMOTION}{promotion.at:%Y%m%dT%H%M%S%f}", promotion.model_dump_json())
        self._tables.set_alias(CHAMPION, version)
        if self._tables.alias(CHALLENGER) in (version, before):  # it has become the champion, now or earlier
            self._tables.delete_alias(CHALLENGER)
        return promotion

    def _check(self, version: str) -> None:
        if version not in self.versions():
            raise self._unknown(f"version {version[:80]!r}")
        if version == self.champion():
            raise UserError(f"version {version} of {self.name!r} is the champion already")

    def _unknown(self, what: str) -> UserError:
        among = ", ".join(self.versions()) or "none; run `python run.py` first"
        return UserError(f"{self.name!r} has no {what}; its versions are: {among}")


def open_registry(workspace: Workspace, name: str) -> ModelRegistry:
    """The registered model ``name`` of a workspace."""
    return ModelRegistry(name, _tables(workspace, name))


def registered_models(workspace: Workspace) -> list[str]:
    """The registered models of a workspace that are named after policies."""
    return sorted(name for name in _tables(workspace, "").models() if name.startswith(OF_POLICY))


def _tables(workspace: Workspace, name: str) -> RegistryTables:
    """What is kept of a registered model.

    Where MLflow keeps its data in the state folder, its database is read and written directly: MLflow itself takes
    seconds to import.
    """
    if workspace.owns_mlflow:
        tables = mlflow_file.open_file(workspace.mlflow_file, name)
        if tables is not None:
            return tables
    from ontopic.registry.mlflow_client import ClientTables, reach

    reach(workspace)
    return ClientTables(workspace.mlflow_uri, name)
