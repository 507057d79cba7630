"""All stores of a state folder whose rows are each of one registered model."""

from __future__ import annotations

from collections.abc import Iterator

from ontopic.monitoring.windows import WindowStore
from ontopic.registry.unnamed import named
from ontopic.state.workspace import Workspace, is_there
from ontopic.traffic.store import TrafficStore
from ontopic.watch.actions import ActionStore


def stores_of(workspace: Workspace, registered_model: str) -> Iterator[TrafficStore | WindowStore | ActionStore]:
    """Those that are there, opened on one registered model."""
    if is_there(workspace.traffic):
        yield TrafficStore(workspace.traffic, registered_model)
    if is_there(workspace.windows):
        yield WindowStore(workspace.windows, registered_model)
        yield ActionStore(workspace.windows, registered_model)


def name_older(workspace: Workspace, registered_model: str) -> None:
    """Have what an older release stored be of the only model of the registry, before another one is registered.

    Raises:
        UserError: as ``ontopic.registry.unnamed.named``.
    """
    for store in stores_of(workspace, registered_model):
        named(store, workspace).close()
