"""What is read and written of one registered model, in MLflow's file or by its client."""

from __future__ import annotations

from typing import Protocol


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

    def describe(self, text: str, version: str = "") -> None:
        """Write the description of a version, or of the registered model; both must exist."""
