"""A chat with the champion: by the service that runs from the same state folder, else with the model itself."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from ontopic.commands.options import Project, check_has_weights, version_of
from ontopic.config.network import http_options
from ontopic.errors import UserError
from ontopic.state.database import database_name
from ontopic.state.service_file import RunningService, read_service

if TYPE_CHECKING:
    from ontopic.models.loading import LanguageModel

_KEY_LIFETIME = timedelta(minutes=5)
_KEY_KNOWN_S = 5.0  # a service reads new keys every second


class Answered(BaseModel):
    """An answer, and which version gave it."""

    model_config = ConfigDict(frozen=True)
    text: str
    version: str


class Champion:
    """The champion in a chat: of a running service, which stores the answers as traffic; without one, nothing is kept.

    A service is looked for with each question; the weights are loaded once, with the first that finds none.
    """

    def __init__(self, project: Project) -> None:
        self._project = project

    def answer(self, messages: Sequence[Mapping[str, str]]) -> Answered:
        """The next message of a conversation.

        Raises:
            UserError: there is no champion, or the service gives no answer.
        """
        service = read_service(self._project.workspace.service)
        if service is not None and service.process() is not None:
            answered = _ask_service(self._project, service, messages=messages)
            if answered is not None:
                return answered
        return self._generated(messages)

    def _generated(self, messages: Sequence[Mapping[str, str]]) -> Answered:
        from ontopic.models.generation import generate

        model, version = self._loaded
        limit = self._project.settings.model.max_new_tokens
        (answer,) = generate(model, [[dict(message) for message in messages]], max_new_tokens=limit)
        return Answered(text=answer.text, version=version)

    @cached_property
    def _loaded(self) -> tuple[LanguageModel, str]:
        """The champion's weights, and its version."""
        check_has_weights(self._project.workspace)
        print("no service runs from this state folder: the champion is loaded, which takes a while", file=sys.stderr)
        version = version_of(self._project, "champion")
        from ontopic.models.loading import open_model  # which imports torch

        return open_model(version.folder, self._project.settings.model.answering_precision), version.version


def _ask_service(
    project: Project, service: RunningService, *, messages: Sequence[Mapping[str, str]]
) -> Answered | None:
    """What a running service answers; ``None`` where it serves another model."""
    from openai import AuthenticationError, DefaultHttpxClient, NotFoundError, OpenAI, OpenAIError

    from serving.keys import KeyStore

    with KeyStore(project.workspace.keys).temporary("ask", lifetime=_KEY_LIFETIME) as key:
        http_client = DefaultHttpxClient(**http_options(service.base_url))
        client = OpenAI(base_url=service.base_url, api_key=key, http_client=http_client)
        deadline = time.monotonic() + _KEY_KNOWN_S
        while True:
            try:
                response = client.chat.completions.with_raw_response.create(
                    model=project.policy.registered_model,
                    messages=messages,  # type: ignore[arg-type]
                    max_tokens=project.settings.model.max_new_tokens,
                    temperature=0,
                )
                break
            except AuthenticationError:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"the service on port {service.port} takes other keys than "
                        f"{database_name(project.workspace.keys)} holds; ask it with one of its own"
                    ) from None
                time.sleep(0.2)
            except NotFoundError:
                return None
            except OpenAIError as error:
                raise UserError(
                    f"the service on port {service.port} gave no answer ({type(error).__name__}); see its log, "
                    f"{project.workspace.service_log}"
                ) from error
    text = response.parse().choices[0].message.content or ""
    return Answered(text=text, version=response.headers.get("x-ontopic-model-version", "unknown"))
