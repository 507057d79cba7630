"""What is read and written of one registered model, in MLflow's file or by its client."""

from __future__ import annotations

from typing import Protocol

from ontopic.state.workspace import Workspace


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


def open_tables(workspace: Workspace, name: str) -> RegistryTables:
    """What is kept of a registered model; with an empty name, of all.

    Where MLflow keeps its data in the state folder, its database is read and written directly: MLflow itself takes
    seconds to import.
    """
    if workspace.owns_mlflow:
        from ontopic.registry.mlflow_file import open_file  # with SQLAlchemy, which --help need not wait for

        tables = open_file(workspace.mlflow_file, name)
        if tables is not None:
            return tables
    from ontopic.registry.mlflow_client import ClientTables, reach

    reach(workspace)
    return ClientTables(workspace.mlflow_uri, name)
