"""A registered model in MLflow's own tables, made without the seconds that MLflow takes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import sqlalchemy as sql

from ontopic.registry import mlflow_file
from ontopic.registry.promotions import COMPLETE, ModelRegistry, open_registry
from ontopic.state.sqlite_file import sqlite_url
from ontopic.state.workspace import Workspace

NAME = "ontopic-test"


def made_registry(root: Path, versions: str = "123", name: str = NAME) -> ModelRegistry:
    """A registered model in the state folder ``root`` whose versions have no weights; none is the champion."""
    root.mkdir(parents=True, exist_ok=True)
    workspace = Workspace(root=root, mlflow_uri=f"sqlite:///{root / 'mlflow.db'}")
    engine = sql.create_engine(sqlite_url(workspace.mlflow_file))
    of = {"workspace": "default", "name": name}
    with engine.begin() as connection:
        mlflow_file._METADATA.create_all(connection)
        connection.execute(sql.insert(mlflow_file._MODELS), of)
        connection.execute(
            sql.insert(mlflow_file._VERSIONS), [of | {"version": int(v), "current_stage": "None"} for v in versions]
        )
    engine.dispose()
    registry = open_registry(workspace, name)
    for version in versions:
        registry.tag(version, {COMPLETE: "true", "ontopic.digest": f"digest of {version}"})
    return registry


def forget_heads(registry: ModelRegistry) -> None:
    """As one would who may write to the registry too: nothing there remembers the promotion record."""
    with closing(sqlite3.connect(registry.record.kept.path.parent / "mlflow.db", isolation_level=None)) as database:
        database.execute("DELETE FROM registered_model_tags WHERE key LIKE 'ontopic.record.%'")


def move_alias(registry: ModelRegistry, version: str) -> None:
    """Move the champion's alias by other means than ours."""
    with closing(sqlite3.connect(registry.record.kept.path.parent / "mlflow.db", isolation_level=None)) as database:
        database.execute("UPDATE registered_model_aliases SET version = ? WHERE alias = 'champion'", (int(version),))
