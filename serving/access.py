"""Who may call the service: a middleware before everything that it answers.

It is set up by one of these environment variables, which ``serving.process.ServedModel`` sets; without any, the service
does not start:
    ONTOPIC_KEYS         path or URL of the key store (``serving.keys``)
    ONTOPIC_KEY_SHA256   SHA-256 of the one key that is accepted
    ONTOPIC_NO_AUTH      1: no key is asked for, and only this machine is answered
``ONTOPIC_ALLOWED_ORIGINS``, with commas between, are the web pages' origins that may call besides; ``*`` is any, where
keys are asked for.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from anyio.to_thread import run_sync
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ontopic.config.network import is_loopback_name
from serving.errors import RequestError, error_response
from serving.html_pages import is_page
from serving.keys import Key, KeyStore, digest
from serving.rate_limits import Allowance, RateLimits
from serving.shared_state import SharedState, SharedStateDownError

logger = logging.getLogger("bentoml.ontopic")

OPEN = ("/healthz", "/livez", "/readyz")  # to everybody
_FRESH_S = 1.0  # a key is known, or no longer, at the latest so long after it was made or revoked
_LONGEST_S = 600.0  # that keys are accepted while the shared state can't be asked whether they still are
_LONGEST_HEADER = 256


@dataclass(frozen=True)
class Caller:
    """Who sends a request: ``scope["state"]["caller"]``.

    Attributes:
        name: of the key; empty where no key is asked for, or only that of one run is.
    """

    name: str
    allowance: Allowance


class Access:
    """Answers who sends no valid key with 401, who sends too much with 429, and lets the rest pass."""

    def __init__(self, app: ASGIApp, environment: Mapping[str, str] = os.environ) -> None:
        self._app = app
        self._no_auth = environment.get("ONTOPIC_NO_AUTH") == "1"
        self._origins = allowed_origins(environment)
        self._kept: _KeptKeys | None = None
        self._keys: dict[str, Key] = {}
        shared: SharedState | None = None
        if sha256 := environment.get("ONTOPIC_KEY_SHA256"):
            self._keys[sha256] = _unlimited(sha256)
        elif not self._no_auth:
            at = environment["ONTOPIC_KEYS"]
            shared = SharedState(at) if "://" in at else None
            self._kept = _KeptKeys(KeyStore(at), shared)
        self._limits = RateLimits(shared)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in OPEN):
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            if is_page(scope):
                self._check_machine(scope)
                await self._app(scope, receive, send)
                return
            key = await self._key(scope)
        except RequestError as error:
            headers = {"www-authenticate": "Bearer"} if error.status == 401 else {}
            await error_response(error, headers)(scope, receive, send)
            return
        allowance = self._limits.of(key)
        scope.setdefault("state", {})["caller"] = Caller(key.name, allowance)

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(allowance.headers())
            await send(message)

        try:
            if scope["path"].startswith("/v1/"):  # reading the metrics takes nothing from a client's limit
                await allowance.take_request()
        except RequestError as error:
            await error_response(error)(scope, receive, send_with_limits)
            return
        await self._app(scope, receive, send_with_limits)

    async def _key(self, scope: Scope) -> Key:
        self._check_machine(scope)
        if self._no_auth:
            return _unlimited("")
        given = Headers(scope=scope).getlist("authorization")
        scheme, _, key = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        if scheme.lower() != "bearer" or not key.strip():
            raise RequestError(
                "no API key was sent; send one as Authorization: Bearer KEY", status=401, code="invalid_api_key"
            )
        keys = self._keys if self._kept is None else await self._kept.active()
        # Looked up by its hash: how long that takes says nothing of any key.
        known = keys.get(digest(key.strip())) if len(key) <= _LONGEST_HEADER else None
        if known is None or known.state(datetime.now(UTC)) != "active":
            raise RequestError(
                "this API key is not valid: it is unknown, expired or revoked", status=401, code="invalid_api_key"
            )
        return known

    def _check_machine(self, scope: Scope) -> None:
        """Refuse what is not from this machine, where no key is asked for."""
        if not self._no_auth:
            return
        # The launcher binds to loopback; a service that was started by other means must not answer the world.
        if not is_loopback((scope.get("server") or ("",))[0]):
            raise RequestError("this service asks for no key, so it answers its own machine alone", status=403)
        self._refuse_pages_of_others(Headers(scope=scope))

    def _refuse_pages_of_others(self, headers: Headers) -> None:
        """A browser on this machine sends what any web page tells it to. The page's ``Origin`` gives it away, or, where
        the page's own name was made to lead here (DNS rebinding), the ``Host``."""
        hosts = [f"//{host}" for host in headers.getlist("host")]
        origins = [origin for origin in headers.getlist("origin") if origin not in self._origins]
        for name, urls in (("Host", hosts), ("Origin", origins)):
            if not all(is_loopback_name(_host(url)) for url in urls):
                raise RequestError(
                    f"this service asks for no key, so it answers this machine alone, and the header {name} names "
                    "another; serve it with keys" + (", or allow the origin" if name == "Origin" else ""),
                    status=403,
                    code=f"{name.lower()}_not_allowed",
                )


class _KeptKeys:
    """The keys of a store by their hashes, read anew when they are older than ``_FRESH_S``.

    While the shared state is down, those read last are accepted for ``_LONGEST_S``: in it nobody can revoke any.
    """

    def __init__(self, store: KeyStore, shared: SharedState | None) -> None:
        self._store, self._shared = store, shared
        self._keys: dict[str, Key] = {}
        self._read_at = -float("inf")
        self._reading = asyncio.Lock()

    async def active(self) -> dict[str, Key]:
        async with self._reading:
            asked_at = time.monotonic()
            if asked_at - self._read_at <= _FRESH_S:
                return self._keys
            try:
                keys = await (self._shared.ask(self._store.all) if self._shared else run_sync(self._store.all))
            except (SQLAlchemyError, SharedStateDownError) as error:
                if self._shared and asked_at - self._read_at <= _LONGEST_S:
                    return self._keys
                logger.exception("the API keys could not be read")
                message = "the API keys could not be read; see the server's log"
                raise RequestError(message, status=503, code="keys_not_read", retry_after_s=1) from error
            self._keys = {key.sha256: key for key in keys if key.revoked_at is None}
            self._read_at = asked_at
        return self._keys


def allowed_origins(environment: Mapping[str, str]) -> list[str]:
    """The origins of web pages that may call."""
    return [origin for origin in environment.get("ONTOPIC_ALLOWED_ORIGINS", "").split(",") if origin]


def cross_origin(app: ASGIApp, environment: Mapping[str, str] = os.environ) -> ASGIApp:
    """A middleware that lets the pages of allowed origins read their answers (CORS); none where none is allowed.

    Before ``Access``: a browser asks whether it may ask without any key.
    """
    origins = allowed_origins(environment)
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["*"],
    )


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own; no name is."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _unlimited(sha256: str) -> Key:
    return Key(
        sha256=sha256,
        name="",
        prefix="",
        requests_per_minute=None,
        tokens_per_minute=None,
        made_at=datetime.now(UTC),
        expires_at=None,
        revoked_at=None,
    )
