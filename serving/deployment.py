"""What answers: one model version, its prompts and its batch; and how the champion's next version takes its place."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from ontopic.models.answer import Batch
from ontopic.registry.promotions import open_registry
from ontopic.registry.versions import find
from ontopic.state.workspace import Workspace
from serving import metrics
from serving.guard import ServedGuard
from serving.guarding import Guarding
from serving.model_source import model_folder

logger = logging.getLogger("bentoml.ontopic")

_LOOK_EVERY_S = 1.0
_AFTER_FAILURE_S = 10.0


class Prompts(Protocol):
    """Conversations as the tokens that a model continues."""

    def ids(self, messages: list[dict[str, str]], limit: int) -> list[int]:
        """The tokens that the model continues with an answer of at most ``limit`` tokens.

        Raises:
            RequestError: it can't continue them.
        """


@dataclass(frozen=True)
class Deployment:
    """A model version that answers, and its guard. A request keeps the one that it began with.

    Attributes:
        guard: with the judge of the newest card when the version was deployed; ``None`` where none is asked for.
        passes_on: whether it is another server's, which gets each request as the client sent it.
    """

    version: str
    prompts: Prompts
    batch: Batch
    guard: ServedGuard | None = None
    passes_on: bool = False

    def drain(self) -> None:
        """Answer what was taken, and end."""
        self.batch.close()
        if self.guard is not None:
            time.sleep(self.guard.guarding.timeout_s)  # for who waits for its say on the last answers
            self.guard.close()


def first_deployment(environment: Mapping[str, str]) -> Deployment:
    """What a service answers with when it starts, as ``serving.service`` describes its environment.

    Raises:
        UserError: there is no such model, or no such server.
    """
    if environment.get("ONTOPIC_BACKEND") == "openai":
        from serving.openai_backend import begin

        return _guarded(partial(begin, environment))
    return deploy(model_folder(environment), environment["ONTOPIC_MODEL_VERSION"])


def deploy(folder: Path, version: str) -> Deployment:
    """Load a model and let it answer, behind a guard where ``ONTOPIC_GUARD`` asks for one.

    Raises:
        UserError: the folder holds no model, vLLM is asked for and not there, or the guard has no card.
    """
    return _guarded(partial(_deploy, folder, version))


def _guarded(begun: Callable[[], Deployment]) -> Deployment:
    guarding = Guarding.of_environment(os.environ)
    guard = ServedGuard(guarding) if guarding else None  # it starts while the model is loaded
    try:
        deployment = replace(begun(), guard=guard)
    except BaseException:
        if guard is not None:
            guard.close()
        raise
    if guard is not None:
        guard.wait_until_ready()
    return deployment


def _deploy(folder: Path, version: str) -> Deployment:
    # torch and Transformers take seconds to import, and only the worker needs them.
    from serving.prompts import Prompts

    if os.environ.get("ONTOPIC_BACKEND") == "vllm":
        from serving.vllm_backend import begin

        language_model, batch = begin(folder)
        return Deployment(version, Prompts(language_model), batch)
    from ontopic.models.continuous_batch import ContinuousBatch
    from ontopic.models.loading import load

    language_model = load(folder, os.environ.get("ONTOPIC_PRECISION", "auto"))  # type: ignore[arg-type]
    return Deployment(version, Prompts(language_model), ContinuousBatch(language_model))


class ChampionFollower:
    """Deploys the version that bears the champion's alias, whenever it is another one.

    The next version is loaded beside the one that answers, which then answers what it has taken and is let go; both are
    in memory meanwhile. A whole model generates faster than a shared base with an adapter beside it. While the registry
    can't be asked, or a version can't be loaded, the old one goes on.

    Args:
        name: of the registered model, in the registry that ``MLFLOW_TRACKING_URI`` names.
        state: folder for weights that are downloaded.
        deployed: the present deployment.
        put: called with the next one; requests that begin after that are its.
    """

    def __init__(
        self, name: str, state: Path, *, deployed: Callable[[], Deployment], put: Callable[[Deployment], object]
    ) -> None:
        self._name, self._deployed, self._put = name, deployed, put
        self._workspace = Workspace(root=state, mlflow_uri=os.environ.get("MLFLOW_TRACKING_URI", ""))
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
                    logger.exception("the champion could not be followed; version %s goes on", self._deployed().version)
                self._said = str(error)

    def _look(self) -> None:
        old, version = self._deployed(), open_registry(self._workspace, self._name).champion()
        if not version or version == old.version:
            return
        if version == self._broken and time.monotonic() < self._again_at:
            return  # a rollback from a version that does not load is seen meanwhile
        self._broken, self._again_at = version, time.monotonic() + _AFTER_FAILURE_S
        self._put(deploy(find(self._name, version, workspace=self._workspace).folder, version))
        self._broken = self._said = ""
        metrics.deployed(version, old.version)
        logger.info("version %s answers now in place of version %s", version, old.version)
        threading.Thread(target=old.drain, name="drain", daemon=True).start()
