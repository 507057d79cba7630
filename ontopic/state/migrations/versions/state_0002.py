"""Lines and whole files, which are in the state folder where machines share nothing, and what waits in spools."""

from __future__ import annotations

import sqlalchemy as sql
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the tables of ``ontopic.state.shared`` and ``ontopic.traffic.spool_index``."""
    op.create_table(
        "lines",
        sql.Column("name", sql.String, primary_key=True),
        sql.Column("number", sql.BigInteger, primary_key=True, autoincrement=False),
        sql.Column("content", sql.LargeBinary, nullable=False),
    )
    op.create_table(
        "files",
        sql.Column("name", sql.String, primary_key=True),
        sql.Column("sha256", sql.String(64), nullable=False),
        sql.Column("size", sql.BigInteger, nullable=False),
        sql.Column("at", sql.DateTime, nullable=False),
    )
    op.create_table(
        "parts",
        sql.Column("name", sql.String, primary_key=True),
        sql.Column("number", sql.Integer, primary_key=True, autoincrement=False),
        sql.Column("content", sql.LargeBinary, nullable=False),
    )
    op.create_table(
        "spools",
        sql.Column("replica", sql.String, primary_key=True),
        sql.Column("waiting", sql.Integer, nullable=False),
        sql.Column("since", sql.DateTime),
        sql.Column("told_at", sql.DateTime, nullable=False),
    )
    op.execute("ALTER TABLE parts ALTER COLUMN content SET STORAGE EXTERNAL")  # it is packed already
