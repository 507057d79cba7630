"""What an older release stored, which does not name the registered model that it is of, gets its name."""

from __future__ import annotations

from typing import Protocol, TypeVar

from ontopic.errors import UserError
from ontopic.registry.promotions import registered_models
from ontopic.state.workspace import Workspace


class NamedStore(Protocol):
    """A store whose rows each name a registered model."""

    name: str

    def unnamed(self) -> int:
        """How many name none."""

    def adopt(self, registered_model: str) -> int:
        """Give these the name; returns how many."""

    def close(self) -> None:
        """Close all connections."""


Store = TypeVar("Store", bound=NamedStore)


def named(store: Store, workspace: Workspace) -> Store:
    """The store, once what names no registered model is of the only one that the registry knows.

    The registry is asked only where there is such a row.

    Raises:
        UserError: there is one, and the registry knows no registered model of a policy, or several.
    """
    n = store.unnamed()
    if not n:
        return store
    known = registered_models(workspace)
    if len(known) != 1:
        store.close()
        which = f"several ({', '.join(known)})" if known else "none yet"
        raise UserError(
            f"{store.name} holds {n:,} rows of an older release that do not say of which policy they are, and the "
            f"registry has {which}; say whose they are: python run.py traffic adopt --config FILE "
            "(docs/reference/traffic.md)"
        )
    store.adopt(known[0])
    return store
