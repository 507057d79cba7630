"""The answer that somebody would have wanted in place of the one that they got."""

from __future__ import annotations

import sqlalchemy as sql
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the column, empty on what is there, and an index by which what is new is found."""
    # With a default in the database, a process of the last release that still runs can go on writing.
    op.add_column("feedback", sql.Column("correction", sql.Text, nullable=False, server_default=""))
    op.create_index("feedback_by_time", "feedback", ["given_at"])
