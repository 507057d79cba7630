"""Stored traffic by the hour, for workers that judge it side by side."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from ontopic.data.partitions import Partition, Row
from ontopic.errors import UserError
from ontopic.state.database import database_name
from ontopic.state.workspace import Workspace
from ontopic.traffic.store import TrafficStore

_NAME = "day=%Y-%m-%d/%H"


@dataclass(frozen=True)
class StoredHours:
    """The traffic store of a state folder, in which each hour is a partition.

    Each process takes the store's URL from its own environment, so no password travels.

    Args:
        root: the state folder.
        store: the store's name, without user and password.
    """

    root: Path
    store: str
    registered_model: str
    columns: tuple[str, ...] = ("id", "model_version", "asked_at")

    @classmethod
    def of(cls, workspace: Workspace, registered_model: str) -> StoredHours:
        """Those of the store that this process has."""
        return cls(workspace.root, database_name(workspace.traffic), registered_model)

    def partitions(self) -> list[Partition]:
        """An hour each, by time; the database counts.

        Raises:
            UserError: there is no record, or the store cannot be opened.
        """
        with self._open() as store:
            hours = store.hours()
        if not hours:
            raise UserError(f"the traffic store {self.store} has no record of {self.registered_model}; serve first")
        return [
            Partition(name=hour.strftime(_NAME), source=hour.isoformat(), n=n, digest=f"{n}-{last}")
            for hour, n, last in hours
        ]

    def rows(self, partition: Partition) -> Iterator[Row]:
        """The records of an hour, in the order they were asked."""
        start = datetime.fromisoformat(partition.source)
        with self._open() as store:
            for record in store.stream(within=(start, start + timedelta(hours=1))):
                about = {"id": record.id, "model_version": record.model_version, "asked_at": record.asked_at}
                yield Row(about, record)

    def _open(self) -> TrafficStore:
        traffic = Workspace(root=self.root).traffic
        if database_name(traffic) != self.store:
            raise UserError(
                f"on {socket.gethostname()} the traffic store is {database_name(traffic)}, and not {self.store}; set "
                "ONTOPIC_TRAFFIC_URL there as on the machine that gives the command"
            )
        return TrafficStore(traffic, self.registered_model)
