"""How many chat requests were answered and how many failed, by the minute."""

from __future__ import annotations

import sqlalchemy as sql
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the table; a process of the last release that still runs does not write to it."""
    op.create_table(
        "requests",
        sql.Column("registered_model", sql.String(200), primary_key=True),
        sql.Column("minute", sql.DateTime, primary_key=True),
        sql.Column("answered", sql.Integer, nullable=False),
        sql.Column("failed", sql.Integer, nullable=False),
    )
