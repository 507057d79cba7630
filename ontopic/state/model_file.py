"""An SQLite file whose rows are each of one registered model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sql

from ontopic.state.sqlite_file import SQLiteFile


def model_column(*, primary_key: bool = False) -> sql.Column[str]:
    """The column that names the registered model; empty in rows of an older release."""
    return sql.Column("registered_model", sql.String, primary_key=primary_key, nullable=False, server_default="")


class ModelFile(SQLiteFile):
    """Tables of which this object reads and writes the rows of one registered model.

    Args:
        path, metadata, what: as ``SQLiteFile`` takes them; tables without a column ``registered_model`` are shared.
        registered_model: its name.
    """

    def __init__(self, path: Path, registered_model: str, *, metadata: sql.MetaData, what: str) -> None:
        self.registered_model, self.name = registered_model, str(path)
        self._named = [table for table in metadata.sorted_tables if "registered_model" in table.c]
        super().__init__(path, metadata, what=what)

    def unnamed(self) -> int:
        """How many rows name no registered model, as those of an older release."""
        with self._engine.connect() as connection:
            counts = [
                connection.scalar(sql.select(sql.func.count()).select_from(table).where(table.c.registered_model == ""))
                for table in self._named
            ]
        return sum(int(n or 0) for n in counts)

    def adopt(self, registered_model: str) -> int:
        """Make the rows that name no registered model this one's, but for those whose key it has; returns how many."""
        n = 0
        with self._engine.begin() as connection:
            for table in self._named:
                of_none = table.c.registered_model == ""
                change: Any = sql.update(table).where(of_none).values(registered_model=registered_model)
                n += connection.execute(change.prefix_with("OR IGNORE")).rowcount
                connection.execute(sql.delete(table).where(of_none))
        return n
