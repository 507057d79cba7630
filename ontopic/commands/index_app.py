"""The server of the index page: on this machine's loopback alone, for the browsers of who started it.

What is stored is only read, but for a decision on a challenger, which takes a token that stands on the terminal.
Another site that is open in the same browser can neither read the pages (their Host is not ours after a rebinding of
its name) nor send the form (its Origin is not ours, and it does not know the token). A report runs in a sandbox
without an origin.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from ontopic.commands.approvals import decide
from ontopic.commands.index_page import ALLOWS, REPORTS, Said, draw_index, draw_life, draw_message, stamp_of
from ontopic.commands.index_state import index_state
from ontopic.commands.options import Project, user_name
from ontopic.commands.page_server import HOST
from ontopic.commands.tool_pages import ToolPage
from ontopic.errors import UserError
from ontopic.registry.sign_off import SignOff
from ontopic.reports.design import content_security_policy

_MOST_FORM = 20_000  # bytes
_MOST_NAME = 255
_FIELDS = ("version", "waiting", "by", "why", "token", "decision")
_READY_S = 30.0
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_FRAMES = "frame-ancestors 'none'"
_SANDBOX = "sandbox allow-scripts allow-popups allow-popups-to-escape-sandbox"
# Of Evidently's, which are one file with scripts inside, and of earlier releases of ours: nothing is loaded or sent.
_OTHERS = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; "
    "font-src data:; base-uri 'none'; form-action 'none'"
)
_OURS = b'<meta name="generator" content="OnTopic">'
_BEGINNING = 4000


class Index:
    """What the server serves, and the tools' pages beside it.

    Args:
        port: that it will listen on.
        tools: as they stand now.
    """

    def __init__(self, project: Project, *, port: int, tools: Sequence[ToolPage]) -> None:
        self.project, self.port = project, port
        self.token = secrets.token_urlsafe(12)
        self.url = f"http://{HOST}:{port}/"
        self.said: Said | None = None
        self._tools = {tool.name: tool for tool in tools}

    @property
    def tools(self) -> list[ToolPage]:
        """Each tool as it stands now."""
        return list(self._tools.values())

    def update(self, name: str, **changed: Any) -> ToolPage:
        """Note what became of a tool's server; returns how it stands."""
        self._tools[name] = self._tools[name].model_copy(update=changed)
        return self._tools[name]

    @property
    def hosts(self) -> set[str]:
        """What a browser on this machine may call this server."""
        return {f"{name}:{self.port}" for name in (HOST, "localhost")}


def app_of(index: Index) -> Callable[..., Any]:
    """The ASGI application."""
    pages = _Pages(index)
    routes = [
        Route("/", pages.index),
        Route("/stamp", pages.stamp),
        Route("/life", pages.life),
        Route("/decide", pages.decide, methods=["POST"]),
        Route(f"/{REPORTS}/{{name}}", pages.report),
    ]
    handlers = {UserError: _mistake, 404: _not_found}
    return _guarded(Starlette(routes=routes, exception_handlers=handlers), index)


@contextmanager
def serving(index: Index) -> Iterator[None]:
    """The server, ready, for as long as the block lasts.

    Raises:
        UserError: another program took the port meanwhile.
    """
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, index.port))
        except OSError as error:
            raise UserError(f"port {index.port} can't be listened on ({error.strerror}); give another") from None
        config = uvicorn.Config(
            app_of(index), log_level="error", access_log=False, server_header=False, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), name="index", daemon=True)
        thread.start()
        deadline = time.monotonic() + _READY_S
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the index page's server did not start")
            time.sleep(0.02)
        try:
            yield
        finally:
            server.should_exit = True
            thread.join(3)


class _Pages:
    """The endpoints. Those that read stores are no coroutines: Starlette runs them in threads."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def index(self, request: Request) -> Response:
        return self._drawn(self._index.said)

    def stamp(self, request: Request) -> Response:
        state = index_state(self._index.project)
        return PlainTextResponse(stamp_of(state, self._index.tools, said=self._index.said))

    def life(self, request: Request) -> Response:
        state = index_state(self._index.project)
        return _page(draw_life(state))

    def report(self, request: Request) -> Response:
        content = read_report(self._index.project.workspace.reports, request.path_params["name"])
        if content is None:
            return _not_found(request, None)
        policy = _of_ours() if _OURS in content[:_BEGINNING] else _OTHERS
        headers = {"Content-Security-Policy": f"{policy}; {_SANDBOX}; {_FRAMES}"}
        return HTMLResponse(content, headers=headers)

    async def decide(self, request: Request) -> Response:
        if not _is_same_origin(request, self._index):
            return PlainTextResponse("the form came from another site", 403)
        form = await _form(request)
        if form is None:
            return PlainTextResponse("that is not the form of the index page", 400)
        return await run_in_threadpool(self._decided, form)

    def _decided(self, form: dict[str, str]) -> Response:
        typed = {name: form[name] for name in ("version", "by", "why")}
        if not hmac.compare_digest(form["token"].strip().encode(), self._index.token.encode()):
            wrong = "the token is not the one that stands on the terminal"
            return self._drawn(Said(status="failed", text=wrong, **typed), status=403)
        if not (form["by"].strip() and form["why"].strip()):
            lacking = "give your name, and a reason for whoever asks later"
            return self._drawn(Said(status="failed", text=lacking, **typed), status=409)
        project = self._index.project
        waits = SignOff(project.settings.promotion, project.policy, workspace=project.workspace).waiting()
        if not any((wait.version, wait.entry.sha256) == (form["version"], form["waiting"]) for wait, _ in waits):
            changed = f"what waited when the page was drawn waits no longer: version {form['version']}; look again"
            self._index.said = Said(status="failed", text=changed)
            return RedirectResponse("/", 303)
        try:
            told = decide(project, form["decision"], version=form["version"], by=form["by"], why=form["why"])
        except UserError as error:
            return self._drawn(Said(status="failed", text=str(error), **typed), status=409)
        self._index.said = Said(status="passed", text=f"{told} ({datetime.now(UTC):%H:%M:%S} UTC)")
        return RedirectResponse("/", 303)

    def _drawn(self, said: Said | None, *, status: int = 200) -> Response:
        index = self._index
        try:
            user = user_name()
        except UserError:
            user = ""
        state = index_state(index.project)
        return _page(draw_index(state, index.tools, said=said, user=user, now=datetime.now(UTC)), status)


def read_report(folder: Any, name: str) -> bytes | None:
    """A page of the folder; ``None`` where there is none by that name.

    No other folder is reached: not by the name, which is a plain one, and not by a link.
    """
    if not name.endswith(".html") or "/" in name or "\\" in name or "\0" in name or len(name) > _MOST_NAME:
        return None
    try:
        opened = os.open(folder / name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        return None
    with os.fdopen(opened, "rb") as file:
        return file.read()


def _guarded(app: Starlette, index: Index) -> Callable[..., Any]:
    """The application behind a look at the Host, with the headers that all answers bear."""

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        host = Request(scope).headers.get("host", "")

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                policy = {"Content-Security-Policy": f"default-src 'none'; {_FRAMES}"}
                more = [(name.lower().encode(), value.encode()) for name, value in (_HEADERS | policy).items()]
                message["headers"] = [*message["headers"], *(each for each in more if each[0] not in given)]
            await send(message)

        if host.lower() not in index.hosts:
            refused = PlainTextResponse("this server answers by another name", 421)
            await refused(scope, receive, with_headers)
            return
        await app(scope, receive, with_headers)

    return guarded


def _of_ours() -> str:
    """The policy of a report of ours. Its own ``meta`` is stricter: it names the style of the release that wrote it."""
    parts = content_security_policy().split("; ")
    return "; ".join("style-src 'unsafe-inline'" if part.startswith("style-src ") else part for part in parts)


def _page(content: str, status: int = 200) -> Response:
    return HTMLResponse(content, status, {"Content-Security-Policy": f"{content_security_policy(ALLOWS)}; {_FRAMES}"})


def _mistake(request: Request, error: Any) -> Response:
    return _page(draw_message("What is stored can't be read", str(error)), 503)


def _not_found(request: Request, error: Any) -> Response:
    return _page(draw_message("There is no such page", "It may have been removed since."), 404)


def _is_same_origin(request: Request, index: Index) -> bool:
    """Whether a form was sent by a page of this server, by what the browser says; a page of another cannot say so."""
    origin = request.headers.get("origin", "null")
    if origin == "null":  # as some extensions for privacy have it
        return request.headers.get("sec-fetch-site") == "same-origin"
    return origin in {f"http://{host}" for host in index.hosts}


async def _form(request: Request) -> dict[str, str] | None:
    """The fields of the form, each once; ``None`` where it is another, or too long."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
        return None
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_FORM:
            return None
    try:
        found = parse_qs(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=10)
    except ValueError:
        return None
    if set(found) != set(_FIELDS) or any(len(values) != 1 for values in found.values()):
        return None
    return {name: values[0] for name, values in found.items()}
