"""A registered model in the state folder's own MLflow database, read and written without MLflow.

Does what MLflow 3.17's store does (``mlflow/store/model_registry/sqlalchemy_store.py``) for what is asked here: a
version that was deleted keeps its row in a stage of its own, and a tag or an alias changes no other row.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import sqlalchemy as sql
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import SQLAlchemyError

from ontopic.state.sqlite_file import sqlite_engine, sqlite_url

_DELETED = "Deleted_Internal"
_WORKSPACE = "default"
_PROMPT = "mlflow.prompt.is_prompt"
_LONGEST_KEY, _LONGEST_VALUE = 250, 100_000  # as MLflow's own client has it
_METADATA = sql.MetaData()


def _table(name: str, *, key: str, others: str = "value") -> sql.Table:
    """A table of MLflow's, by the names of its columns."""
    keys = ["workspace", *key.split()]
    columns = [
        sql.Column(column, sql.Integer if column == "version" else sql.Text, primary_key=column in keys)
        for column in (*keys, *others.split())
    ]
    return sql.Table(name, _METADATA, *columns)


_MODELS = _table("registered_models", key="name", others="creation_time last_updated_time description")
_MODEL_TAGS = _table("registered_model_tags", key="key name")
_ALIASES = _table("registered_model_aliases", key="name alias", others="version")
_VERSIONS = _table(
    "model_versions",
    key="name version",
    others="creation_time last_updated_time description user_id current_stage source storage_location run_id run_link "
    "status status_message",
)
_VERSION_TAGS = _table("model_version_tags", key="key name version")

_EXPERIMENT = (
    "SELECT experiment_id FROM experiments WHERE name = :name AND workspace = :workspace AND lifecycle_stage = 'active'"
)
_EVALUATIONS = (
    "SELECT role.value AS role, runs.run_uuid FROM runs "
    "JOIN tags AS stage ON stage.run_uuid = runs.run_uuid AND stage.key = 'stage' AND stage.value = 'evaluation' "
    "JOIN tags AS role ON role.run_uuid = runs.run_uuid AND role.key = 'role' "
    "WHERE runs.experiment_id = :experiment AND runs.lifecycle_stage = 'active' ORDER BY runs.start_time"
)


class FileTables:
    """``RegistryTables`` in a file; where the file is missing, there is nothing to read.

    Args:
        name: of the registered model.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        # MLflow leaves the journal as it is, waits 20 s for others, and lets the database hold what keys refer to.
        self._reading, self._writing = (
            sqlite_engine(sqlite_url(path), timeout_s=20, pooled=False, immediate=writes, pragmas=("foreign_keys=ON",))
            for writes in (False, True)
        )

    def fits(self) -> bool:
        """Whether the tables have the columns that are known here, and no others."""
        try:
            found = sql.inspect(self._reading)
            return all(
                found.has_table(table.name)
                and {column["name"] for column in found.get_columns(table.name)} == set(table.c.keys())
                and set(found.get_pk_constraint(table.name)["constrained_columns"]) == set(table.primary_key.c.keys())
                for table in _METADATA.sorted_tables
            )
        except SQLAlchemyError:
            return False

    def models(self) -> list[str]:
        """See ``RegistryTables``."""
        if not self._path.is_file():
            return []
        prompts = sql.select(_MODEL_TAGS.c.name).where(
            _MODEL_TAGS.c.workspace == _WORKSPACE, _MODEL_TAGS.c.key == _PROMPT
        )
        with self._reading.connect() as connection:
            query = sql.select(_MODELS.c.name).where(_MODELS.c.workspace == _WORKSPACE, _MODELS.c.name.not_in(prompts))
            return list(connection.scalars(query))

    def versions(self) -> dict[str, dict[str, str]]:
        """See ``RegistryTables``."""
        if not self._path.is_file():  # SQLite would make it
            return {}
        with self._reading.connect() as connection:
            tags: dict[str, dict[str, str]] = {str(number): {} for number in self._numbers(connection)}
            for row in connection.execute(sql.select(_VERSION_TAGS).where(*self._this(_VERSION_TAGS))):
                if str(row.version) in tags:  # a deleted version keeps its tags
                    tags[str(row.version)][row.key] = row.value
        return tags

    def alias(self, alias: str) -> str:
        """See ``RegistryTables``."""
        if not self._path.is_file():
            return ""
        with self._reading.connect() as connection:
            query = sql.select(_ALIASES.c.version).where(*self._this(_ALIASES), _ALIASES.c.alias == alias)
            version = connection.scalar(query)
            return str(version) if version in self._numbers(connection) else ""

    def artifacts(self, version: str) -> Path | None:
        """The folder on this machine that a version was logged to; ``None`` where it is elsewhere or not known."""
        with self._reading.connect() as connection:
            row = connection.execute(
                sql.select(_VERSIONS.c.source, _VERSIONS.c.run_id).where(
                    *self._this(_VERSIONS), _VERSIONS.c.version == int(version)
                )
            ).first()
            run = f"runs:/{row.run_id}/" if row else ""
            if row is None or not row.source.startswith(run):
                return None
            uri = connection.scalar(sql.text("SELECT artifact_uri FROM runs WHERE run_uuid = :id"), {"id": row.run_id})
        parts = urlsplit(str(uri))
        if parts.scheme not in ("", "file") or not parts.path:
            return None
        return Path(unquote(parts.path)) / row.source.removeprefix(run)

    def evaluations(self) -> tuple[str, dict[str, str]] | None:
        """The experiment of this model, by its id, and the newest gate's evaluation runs by the model's role; ``None``
        where there is no such experiment."""
        if not self._path.is_file():
            return None
        with self._reading.connect() as connection:
            experiment = connection.scalar(sql.text(_EXPERIMENT), {"name": self._name, "workspace": _WORKSPACE})
            if experiment is None:
                return None
            runs = connection.execute(sql.text(_EVALUATIONS), {"experiment": experiment})
            return str(experiment), {row.role: row.run_uuid for row in runs}  # of each role the last, the newest

    def set_alias(self, alias: str, version: str) -> None:
        """See ``RegistryTables``."""
        self._write(_ALIASES, {"alias": alias}, values={"version": int(version)}, of=int(version))

    def delete_alias(self, alias: str) -> None:
        """See ``RegistryTables``."""
        with self._writing.begin() as connection:
            connection.execute(sql.delete(_ALIASES).where(*self._this(_ALIASES), _ALIASES.c.alias == alias))

    def tags(self) -> dict[str, str]:
        """See ``RegistryTables``."""
        if not self._path.is_file():
            return {}
        with self._reading.connect() as connection:
            rows = connection.execute(sql.select(_MODEL_TAGS).where(*self._this(_MODEL_TAGS)))
            return {row.key: row.value for row in rows}

    def set_tag(self, key: str, value: str) -> None:
        """See ``RegistryTables``."""
        _check_tag(key, value)
        self._write(_MODEL_TAGS, {"key": key}, values={"value": value})

    def set_version_tag(self, version: str, key: str, *, value: str) -> None:
        """See ``RegistryTables``."""
        _check_tag(key, value)
        keys: dict[str, str | int] = {"key": key, "version": int(version)}
        self._write(_VERSION_TAGS, keys, values={"value": value}, of=int(version))

    def describe(self, text: str, version: str = "") -> None:
        """See ``RegistryTables``."""
        table = _VERSIONS if version else _MODELS
        only = [_VERSIONS.c.version == int(version)] if version else []
        written = {"description": text, "last_updated_time": round(time.time() * 1000)}
        with self._writing.begin() as connection:
            connection.execute(sql.update(table).where(*self._this(table), *only).values(**written))

    def _write(
        self,
        table: sql.Table,
        keys: Mapping[str, str | int],
        *,
        values: Mapping[str, str | int],
        of: int | None = None,
    ) -> None:
        """Insert a row of this model, or change it where it is there.

        Args:
            of: the version that it is about.

        Raises:
            LookupError: there is no such version.
        """
        row = {"workspace": _WORKSPACE, "name": self._name, **keys, **values}
        change = sqlite.insert(table).values(row)
        with self._writing.begin() as connection:
            if of is not None and of not in self._numbers(connection):
                raise LookupError(f"{self._name!r} has no version {of}")
            connection.execute(
                change.on_conflict_do_update(index_elements=table.primary_key.c.keys(), set_=dict(values))
            )

    def _numbers(self, connection: sql.Connection) -> list[int]:
        """The versions that are not deleted, from oldest to newest."""
        query = sql.select(_VERSIONS.c.version).where(*self._this(_VERSIONS), _VERSIONS.c.current_stage != _DELETED)
        return list(connection.scalars(query.order_by(_VERSIONS.c.version)))

    def _this(self, table: sql.Table) -> tuple[sql.ColumnElement[bool], ...]:
        return table.c.workspace == _WORKSPACE, table.c.name == self._name


def open_file(path: Path, name: str) -> FileTables | None:
    """The tables in ``path``; ``None`` where they are not those of MLflow 3.17, so that MLflow itself must be asked."""
    tables = FileTables(path, name)
    return tables if not path.exists() or tables.fits() else None


def _check_tag(key: str, value: str) -> None:
    if len(key) > _LONGEST_KEY or len(value) > _LONGEST_VALUE:
        raise ValueError(
            f"the tag {key[:80]!r} is too long: {len(key)} and {len(value)} characters, where MLflow takes "
            f"{_LONGEST_KEY} and {_LONGEST_VALUE}"
        )
