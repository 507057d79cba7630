"""The ``openai`` package's client of an endpoint: which server, which key."""

from __future__ import annotations

import os
import re
import unicodedata
from typing import Any
from urllib.parse import urlsplit

import httpx2
from openai import AsyncOpenAI

from ontopic.config.network import http_options, is_server_address
from ontopic.config.settings import EndpointSettings
from ontopic.endpoint.http_client import ReplyClient
from ontopic.errors import UserError

# People copy the address of a call where that of the server is asked for.
_PATH_OF_A_CALL = re.compile(r"/+(chat/completions|completions|responses|embeddings|models)/*\Z", re.I)
_OPENAI = "https://api.openai.com/v1"


def llm_client(settings: EndpointSettings, **http: Any) -> AsyncOpenAI:
    """The client of an endpoint.

    Args:
        http: what the client of HTTP takes besides.

    Raises:
        UserError: no key is set, and no server of the user's own, which may need none; key or address are not such; or
            the server is elsewhere, and the environment's proxy cannot be used.
    """
    base_url = base_url_of(settings)
    key = key_in(settings.api_key_variable) or ("none" if base_url else "")
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
        http_client=ReplyClient(**http_options(base_url or _OPENAI), **http),
    )


def base_url_of(settings: EndpointSettings) -> str | None:
    """The server of these settings, else of ``OPENAI_BASE_URL``; ``None`` for OpenAI's own.

    The path of a call, such as ``/chat/completions``, is left out.

    Raises:
        UserError: the address is not one, or has a query.
    """
    base_url = settings.base_url or os.environ.get("OPENAI_BASE_URL") or None
    if not base_url:
        return None
    base_url = _PATH_OF_A_CALL.sub("", base_url)
    if not is_server_address(base_url):
        raise UserError(f"base_url {base_url!r} is not the address of a server; give it as http://host:port/v1")
    parts = urlsplit(base_url)
    if parts.query or parts.fragment:
        raise UserError(
            f"base_url {shown_url(base_url)} has a part after ? or #, which no request keeps; give it without"
        )
    return base_url


def shown_url(url: httpx2.URL | str) -> str:
    """An address without the name, password, query and fragment that it may hold."""
    url = httpx2.URL(url)
    port = "" if url.port is None else f":{url.port}"
    return f"{url.scheme}://{f'[{url.host}]' if ':' in url.host else url.host}{port}{url.path}"


def key_in(variable: str) -> str:
    """The API key in an environment variable; empty where it is not set.

    Raises:
        UserError: it has a character that no header of HTTP can hold.
    """
    key = os.environ.get(variable, "")
    wrong = next((i for i, c in enumerate(key) if not " " <= c <= "~" or (c == " " and i in (0, len(key) - 1))), None)
    if wrong is None:
        return key
    character = f"U+{ord(key[wrong]):04X} {unicodedata.name(key[wrong], '')}".strip()
    raise UserError(
        f"the key in {variable} has a character that no header can hold, its {wrong + 1}. of {len(key)}: {character}; "
        "put the key in anew, without blanks or line ends around it"
    )
