"""What answers: one model version, its prompts and its batch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ontopic.models.answer import Batch
from serving.guard import ServedGuard
from serving.guarding import Guarding
from serving.model_source import found_model

if TYPE_CHECKING:
    from ontopic.models.loading import LanguageModel


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
        weights: the model, where its weights are in this process.
    """

    version: str
    prompts: Prompts
    batch: Batch
    guard: ServedGuard | None = None
    passes_on: bool = False
    weights: LanguageModel | None = None

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
    return deploy(*found_model(environment))


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
    from ontopic.models.engines import begin_batch
    from ontopic.models.loading import open_model

    language_model = open_model(folder, os.environ.get("ONTOPIC_PRECISION", "auto"))  # type: ignore[arg-type]
    return Deployment(version, Prompts(language_model), begin_batch(language_model), weights=language_model)
