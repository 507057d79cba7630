"""The answer that somebody would have wanted, the stage of a rollout, and what a challenger answers unseen."""

from __future__ import annotations

import sqlalchemy as sql
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the columns, empty on what is there, an index by which what is new is found, and the table."""
    # With a default in the database, a process of the last release that still runs can go on writing.
    op.add_column("feedback", sql.Column("correction", sql.Text, nullable=False, server_default=""))
    op.create_index("feedback_by_time", "feedback", ["given_at"])
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
