"""The table as OnTopic 0.1 made it; a store of that release has it already, and no revision."""

from __future__ import annotations

import sqlalchemy as sql
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the table where it is missing."""
    op.create_table(
        "traffic",
        sql.Column("id", sql.String(64), primary_key=True),
        sql.Column("asked_at", sql.DateTime, nullable=False),
        sql.Column("model_version", sql.String(200), nullable=False),
        sql.Column("question", sql.Text, nullable=False),
        sql.Column("answer", sql.Text, nullable=False),
        sql.Column("in_scope", sql.Boolean),
        sql.Column("latency_s", sql.Float, nullable=False),
        sql.Column("prompt_tokens", sql.Integer, nullable=False),
        sql.Column("completion_tokens", sql.Integer, nullable=False),
        sql.Column("finished", sql.Boolean, nullable=False),
        if_not_exists=True,
    )
