"""How a service follows the registry: the champion's next version takes its place, a challenger answers beside it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ontopic.registry.promotions import open_registry
from ontopic.registry.rollouts import Rollout, shown
from ontopic.registry.versions import find
from ontopic.state.workspace import Workspace
from ontopic.traffic.store import TrafficStore
from serving import metrics
from serving.deployment import Deployment, deploy
from serving.rolling import Rolling, begin_rolling, next_stage

logger = logging.getLogger("bentoml.ontopic")

_LOOK_EVERY_S = 1.0
_AFTER_FAILURE_S = 10.0


class Answering(Protocol):
    """What answers in a service.

    Attributes:
        deployment: the champion's.
        rolling: the challenger that is rolled out; ``None`` where none is.
        traffic: where records go.
    """

    deployment: Deployment
    rolling: Rolling | None
    traffic: TrafficStore


class RegistryFollower:
    """Deploys the version that bears the champion's alias whenever it is another one, and the challenger of a rollout.

    The champion's next version is loaded beside the one that answers, which then answers what it has taken and is let
    go; both are in memory meanwhile. Its weights are whole, which generate faster than those of a base with an adapter
    beside it. While the registry can't be asked, or a version can't be loaded, all goes on as it is.

    Args:
        name: of the registered model, in the registry that ``MLFLOW_TRACKING_URI`` names.
        state: folder for weights that are downloaded.
        service: what is changed; requests that begin after that are of those that stand there then.
    """

    def __init__(
        self, name: str, state: Path, *, service: Answering, environment: Mapping[str, str] = os.environ
    ) -> None:
        self._name, self._service = name, service
        self._workspace = Workspace(root=state, mlflow_uri=environment.get("MLFLOW_TRACKING_URI", ""))
        self._stop = threading.Event()
        self._said, self._broken, self._again_at = "", "", 0.0
        threading.Thread(target=self._follow, name="champion", daemon=True).start()

    def close(self) -> None:
        """Follow no more."""
        self._stop.set()

    def _follow(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            try:
                self._look()
            except Exception as error:
                if str(error) != self._said:
                    version = self._service.deployment.version
                    logger.exception("the champion could not be followed; version %s goes on", version)
                self._said = str(error)

    def _look(self) -> None:
        registry = open_registry(self._workspace, self._name)
        version = registry.champion()
        if not version:
            return
        if version != self._service.deployment.version:
            self._follow_champion(version)
        if version == self._service.deployment.version:
            self._follow_rollout(shown(registry, version))

    def _follow_champion(self, version: str) -> None:
        old, rolling = self._service.deployment, self._service.rolling
        if not self._may_try(version):
            return  # a rollback from a version that does not load is seen meanwhile
        self._service.deployment = deploy(find(self._name, version, workspace=self._workspace).folder, version)
        self._service.rolling = None  # it was against the old one
        self._broken = self._said = ""
        metrics.deployed(version, old.version)
        logger.info("version %s answers now in place of version %s", version, old.version)
        _drain(*((rolling, old) if rolling else (old,)))

    def _follow_rollout(self, rollout: Rollout | None) -> None:
        service, rolling = self._service, self._service.rolling
        if rollout == (rolling and rolling.rollout):
            return
        if rollout is not None and rolling is not None and (later := next_stage(rolling, rollout)) is not None:
            service.rolling = later
            return
        if rolling is not None:
            service.rolling = None
            _drain(rolling)
        if rollout is None or not self._may_try(rollout.version):
            return
        challenger = find(self._name, rollout.version, workspace=self._workspace)
        service.rolling = begin_rolling(
            rollout,
            challenger,
            champion=service.deployment,
            traffic=service.traffic,
        )
        self._broken = self._said = ""

    def _may_try(self, version: str) -> bool:
        """Whether a version may be loaded now: one that could not be is left alone for a while."""
        if version == self._broken and time.monotonic() < self._again_at:
            return False
        self._broken, self._again_at = version, time.monotonic() + _AFTER_FAILURE_S
        return True


class _Drained(Protocol):
    def drain(self) -> None: ...


def _drain(*ending: _Drained) -> None:
    """Let them end one after the other: the champion last, as its guard is the challenger's too."""

    def drain() -> None:
        for each in ending:
            each.drain()

    threading.Thread(target=drain, name="drain", daemon=True).start()


def answering(service: Answering, conversation: str) -> tuple[Deployment, Rolling | None]:
    """Who answers a request of this conversation, and the rollout that goes on."""
    deployment, rolling = service.deployment, service.rolling
    if rolling is not None and rolling.shadow is None and rolling.rollout.answers(conversation):
        return rolling.deployment, rolling
    return deployment, rolling
