"""When each record was stored, so that monitoring finds what is new, however long ago it was asked."""

from __future__ import annotations

import sqlalchemy as sql
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the time, which records of older releases lack, and its index."""
    op.add_column("traffic", sql.Column("stored_at", sql.DateTime))
    op.create_index("traffic_by_arrival", "traffic", ["stored_at", "id"])
