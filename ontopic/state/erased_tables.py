"""The database that machines share without what is to be erased; in a state folder its tables are files like others."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sql

from ontopic.state.database import open_state
from ontopic.state.erased_files import erase_from_cell
from ontopic.state.erasing import Erasing


def erase_from_tables(url: str, erasing: Erasing, *, tables: Iterable[sql.Table]) -> int:
    """Take it out of all texts of these tables; returns how many rows held some."""
    n = 0
    with open_state(url).begin() as connection:
        for table in tables:
            key = list(table.primary_key.columns)
            texts = [each for each in table.columns if isinstance(each.type, sql.String) and not each.primary_key]
            for row in connection.execute(sql.select(*key, *texts)).all():
                kept = {column.name: getattr(row, column.name) for column in texts}
                written = {name: erase_from_cell(value, erasing) for name, value in kept.items()}
                if written != kept:
                    this = [column == getattr(row, column.name) for column in key]
                    connection.execute(sql.update(table).where(*this).values(written))
                    n += 1
    return n


def scrub_tables(url: str, tables: Iterable[sql.Table]) -> None:
    """Write tables anew, so that nothing of what was deleted is left in the database's files."""
    with open_state(url).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in tables:
            connection.exec_driver_sql(f'VACUUM (FULL) "{table.name}"')
