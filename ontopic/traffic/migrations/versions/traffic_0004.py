"""What people thought of answers."""

from __future__ import annotations

import sqlalchemy as sql
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "feedback",
        sql.Column("record_id", sql.String(64), primary_key=True),
        sql.Column("by", sql.String(64), primary_key=True),
        sql.Column("thumb", sql.String(4), nullable=False),
        sql.Column("comment", sql.Text, nullable=False),
        sql.Column("given_at", sql.DateTime, nullable=False),
    )
