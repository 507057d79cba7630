"""In which stage of a rollout a record was answered, and what a challenger answers unseen, apart from the records."""

from __future__ import annotations

import sqlalchemy as sql
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the stage, which no record has yet, and the table."""
    op.add_column("traffic", sql.Column("rollout", sql.String(16)))
    op.create_table(
        "shadow",
        sql.Column("record_id", sql.String(64), primary_key=True),
        sql.Column("model_version", sql.String(200), primary_key=True),
        sql.Column("answer", sql.Text, nullable=False),
        sql.Column("prompt_tokens", sql.Integer, nullable=False),
        sql.Column("completion_tokens", sql.Integer, nullable=False),
        sql.Column("finished", sql.Boolean, nullable=False),
        sql.Column("stored_at", sql.DateTime, nullable=False),
    )
