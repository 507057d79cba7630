"""The whole request that each answer follows: its messages, its parameters, and the conversation that it is part of."""

from __future__ import annotations

import sqlalchemy as sql
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the three columns, which say nothing of the records that are there."""
    op.add_column("traffic", sql.Column("messages", sql.Text))
    op.add_column("traffic", sql.Column("parameters", sql.Text))
    # With a default in the database, a process of the last release that still runs can go on writing.
    op.add_column("traffic", sql.Column("conversation", sql.String(64), nullable=False, server_default=""))
