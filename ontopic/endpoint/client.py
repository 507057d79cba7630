"""The ``openai`` package's client of an endpoint: which server, which key."""

from __future__ import annotations

import os
from typing import Any

from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from ontopic.config.network import http_options, is_server_address
from ontopic.config.settings import EndpointSettings
from ontopic.errors import UserError

_OPENAI = "https://api.openai.com/v1"


def llm_client(settings: EndpointSettings, **http: Any) -> AsyncOpenAI:
    """The client of an endpoint.

    Args:
        http: what the client of HTTP takes besides.

    Raises:
        UserError: no key is set, and no server of the user's own, which may need none; the server's address is not one;
            or it is elsewhere, and the environment's proxy cannot be used.
    """
    base_url = base_url_of(settings)
    key = os.environ.get(settings.api_key_variable) or ("none" if base_url else "")
    if not key:
        name = settings.api_key_variable
        raise UserError(
            f"an LLM is configured but {name} is not set; put it into .env (see .env.example), or set base_url or "
            "OPENAI_BASE_URL to a server of your own"
        )
    return AsyncOpenAI(
        api_key=key,
        base_url=base_url,
        timeout=settings.timeout_s,
        max_retries=settings.max_retries,
        http_client=DefaultAsyncHttpxClient(**http_options(base_url or _OPENAI), **http),
    )


def base_url_of(settings: EndpointSettings) -> str | None:
    """The server of these settings, else of ``OPENAI_BASE_URL``; ``None`` for OpenAI's own.

    Raises:
        UserError: the address is not one.
    """
    base_url = settings.base_url or os.environ.get("OPENAI_BASE_URL") or None
    if base_url and not is_server_address(base_url):
        raise UserError(f"base_url {base_url!r} is not the address of a server; give it as http://host:port/v1")
    return base_url
