"""SQLite tables of an older release, which lack columns, are made anew."""

from __future__ import annotations

import sqlalchemy as sql


def make_anew(engine: sql.Engine, metadata: sql.MetaData, *, writing: sql.Engine) -> None:
    """Give the tables that are there the columns and keys of these, in one transaction; their rows stay.

    Indexes of such a table are gone after that. A new column that has no default may be null.

    Args:
        writing: an engine on the same file, whose transactions hold changes of tables too.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the file cannot be read or written.
    """
    with engine.connect() as connection:
        if not _older(connection, metadata):
            return
    with writing.begin() as connection:
        for table, there in _older(connection, metadata).items():  # another process may have been first
            _make_anew(connection, table, there=there)


def _older(connection: sql.Connection, metadata: sql.MetaData) -> dict[sql.Table, set[str]]:
    """The tables that lack columns, with the names of those that they have."""
    there = {table: _columns(connection, table) for table in metadata.sorted_tables}
    return {table: names for table, names in there.items() if names and set(table.c.keys()) - names}


def _columns(connection: sql.Connection, table: sql.Table) -> set[str]:
    return {row[1] for row in connection.exec_driver_sql(f'PRAGMA table_info("{table.name}")')}


def _make_anew(connection: sql.Connection, table: sql.Table, *, there: set[str]) -> None:
    old = f"{table.name}_before"
    indexes = connection.exec_driver_sql(
        "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL", (table.name,)
    )
    for name in indexes.scalars().all():
        connection.exec_driver_sql(f'DROP INDEX "{name}"')
    connection.exec_driver_sql(f'ALTER TABLE "{table.name}" RENAME TO "{old}"')
    connection.execute(sql.schema.CreateTable(table))
    kept = [column.name for column in table.columns if column.name in there]
    rows = sql.select(*map(sql.column, kept)).select_from(sql.table(old))
    connection.execute(sql.insert(table).from_select(kept, rows, include_defaults=False))
    connection.exec_driver_sql(f'DROP TABLE "{old}"')
