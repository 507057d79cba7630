"""Who asked, what they said of the request, and what the guard decided."""

from __future__ import annotations

import sqlalchemy as sql
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the four columns, which say nothing of the records that are there."""
    # With a default in the database, a process of the last release that still runs can go on writing.
    op.add_column("traffic", sql.Column("user", sql.String(64), nullable=False, server_default=""))
    op.add_column("traffic", sql.Column("key", sql.String(64), nullable=False, server_default=""))
    op.add_column("traffic", sql.Column("metadata", sql.Text))
    op.add_column("traffic", sql.Column("guard", sql.Text))
