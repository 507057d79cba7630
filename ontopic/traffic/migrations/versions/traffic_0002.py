"""How much personal data was taken out of each record, and an index for reading in order of time."""

from __future__ import annotations

import sqlalchemy as sql
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add a count for each kind of personal data, and the index."""
    for kind in ("card", "iban", "email", "phone"):
        # With a default in the database, a process of the last release that still runs can go on writing.
        op.add_column("traffic", sql.Column(f"redacted_{kind}", sql.Integer, nullable=False, server_default="0"))
    op.create_index("traffic_by_time", "traffic", ["asked_at", "id"])
