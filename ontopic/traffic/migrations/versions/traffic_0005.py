"""Which registered model answered, so that the traffic of several policies is told apart."""

from __future__ import annotations

import sqlalchemy as sql
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the name, empty on what is there, and put it before the times of both indexes."""
    # With a default in the database, a process of the last release that still runs can go on writing.
    op.add_column("traffic", sql.Column("registered_model", sql.String(200), nullable=False, server_default=""))
    for index, time in (("traffic_by_time", "asked_at"), ("traffic_by_arrival", "stored_at")):
        op.drop_index(index, "traffic")
        op.create_index(f"{index}_of_model", "traffic", ["registered_model", time, "id"])
