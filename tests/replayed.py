"""What a predecessor was asked again in canary stretches."""

from __future__ import annotations

import contextlib
import json
import sqlite3

from ontopic.state.workspace import Workspace
from ontopic.traffic.store import TrafficStore


def well_answered(workspace: Workspace, registered_model: str, *, version: str) -> set[str]:
    """The questions that a version answered so that the judge passes it."""
    with contextlib.closing(sqlite3.connect(workspace.windows)) as windows:
        asked = "SELECT record_id, verdict FROM replays WHERE model_version = ?"
        rows = windows.execute(asked, (version,)).fetchall()
    good = [record_id for record_id, verdict in rows if json.loads(verdict)["outcome"] == "pass"]
    with TrafficStore(workspace.traffic, registered_model) as traffic:
        return {record.question for record in traffic.records(ids=good)}
