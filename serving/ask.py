"""Asking the champion one question: of the service that runs from the same state folder, else of the model itself."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

from pydantic import BaseModel, ConfigDict

from ontopic.commands.options import Project, version_of
from ontopic.config.network import http_options
from ontopic.errors import UserError
from ontopic.state.service_file import RunningService, read_service

_KEY_LIFETIME = timedelta(minutes=5)
_KEY_KNOWN_S = 5.0  # a service reads new keys every second


class Answered(BaseModel):
    """An answer, and which version gave it."""

    model_config = ConfigDict(frozen=True)
    text: str
    version: str


def ask_champion(project: Project, question: str) -> Answered:
    """The champion's answer. A running service stores it as traffic; without one, nothing is stored.

    Raises:
        UserError: there is no champion, or the service gives no answer.
    """
    service = read_service(project.workspace.service)
    if service is not None and service.process() is not None:
        answered = _ask_service(project, service, question=question)
        if answered is not None:
            return answered
    return _ask_model(project, question)


def _ask_service(project: Project, service: RunningService, *, question: str) -> Answered | None:
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
                    messages=[{"role": "user", "content": question}],
                    max_tokens=project.settings.model.max_new_tokens,
                    temperature=0,
                )
                break
            except AuthenticationError:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"the service on port {service.port} takes other keys than {project.workspace.keys} holds; "
                        "ask it with one of its own"
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


def _ask_model(project: Project, question: str) -> Answered:
    from ontopic.models.generation import generate
    from ontopic.models.loading import load

    print("no service runs from this state folder: the champion is loaded, which takes a while", file=sys.stderr)
    version, settings = version_of(project, "champion"), project.settings.model
    model = load(version.folder, settings.precision)
    messages = [{"role": "user", "content": question}]
    (answer,) = generate(model, [messages], max_new_tokens=settings.max_new_tokens)
    return Answered(text=answer.text, version=version.version)
