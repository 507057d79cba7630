"""What API keys used in the last minute."""

from __future__ import annotations

import sqlalchemy as sql
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table; a minute's counts need not survive a crash of the server, so it is written to no log."""
    op.create_table(
        "rate_use",
        sql.Column("key", sql.String(64), primary_key=True),
        sql.Column("kind", sql.String(8), primary_key=True),
        sql.Column("second", sql.BigInteger, nullable=False),
        sql.Column("counts", postgresql.ARRAY(sql.BigInteger), nullable=False),
        prefixes=["UNLOGGED"],
    )
