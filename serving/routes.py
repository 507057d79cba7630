"""What the service answers, by path."""

from __future__ import annotations

import logging
from typing import Any

import anyio.to_thread
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from serving import html_pages, metrics, openapi
from serving.access import OPEN
from serving.answers import answer
from serving.assistant import ServedAssistant
from serving.chat_completions import chat_completions
from serving.errors import RequestError, error_response
from serving.feedback_request import feedback_request
from serving.request_body import read_json

logger = logging.getLogger("bentoml.ontopic")


async def models(request: Request) -> JSONResponse:
    """The one model that is served."""
    return JSONResponse({"object": "list", "data": [_entry(request.app.state.assistant)]})


async def model(request: Request) -> JSONResponse:
    """The model of a name."""
    entry, name = _entry(request.app.state.assistant), request.path_params["name"]
    if name != entry["id"]:
        raise RequestError(
            f"there is no model {name[:80]!r} here; this server serves {entry['id']!r}",
            "model",
            status=404,
            code="model_not_found",
        )
    return JSONResponse(entry)


def _entry(assistant: ServedAssistant) -> dict[str, Any]:
    return {
        "id": assistant.model_name,
        "object": "model",
        "created": assistant.created,
        "owned_by": "ontopic",
        "version": assistant.deployment.version,
    }


async def feedback(request: Request) -> JSONResponse:
    """Keep what somebody thought of an answer."""
    assistant: ServedAssistant = request.app.state.assistant
    body = await read_json(request)
    asked = feedback_request(body, request.state.caller.name)
    try:
        known = await anyio.to_thread.run_sync(assistant.traffic.add_feedback, asked)
    except SQLAlchemyError as error:
        logger.exception("the feedback could not be stored")
        message = "the feedback could not be stored"
        raise RequestError(message, None, status=503, code="feedback_not_stored", retry_after_s=1) from error
    if not known:
        raise RequestError("there is no record of this id", "record_id", status=404, code="record_not_found")
    metrics.thumb(asked.thumb, corrected=bool(asked.correction.strip()))
    return JSONResponse({"object": "feedback", "record_id": asked.record_id, "thumb": asked.thumb})


async def openapi_document(request: Request) -> JSONResponse:
    """``/openapi.json``."""
    assistant: ServedAssistant = request.app.state.assistant
    deployment = assistant.deployment
    upstream = deployment.version if deployment.passes_on else None
    return JSONResponse(openapi.document(assistant.model_name, upstream=upstream))


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    if isinstance(error, HTTPException):
        return error_response(RequestError(error.detail, status=error.status_code), error.headers)
    known = error if isinstance(error, RequestError) else RequestError("the server failed; see its log", status=500)
    # What is left of a body that took too long is not read, so the connection is of no use any more.
    return error_response(known, {"connection": "close"} if known.status == 408 else None)


async def _page(request: Request) -> Response:
    if not html_pages.is_page(request.scope):
        raise HTTPException(404)
    return await html_pages.page(request)


# Its ``state.assistant`` is the ``ServedAssistant``, once that is there.
api = Starlette(
    routes=[
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        Route("/v1/feedback", feedback, methods=["POST"]),
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/models/{name:path}", model, methods=["GET"]),
        Route("/v1/answers/{record_id}", answer, methods=["GET"]),
        Route("/metrics", metrics.page, methods=["GET"]),
        Route("/openapi.json", openapi_document, methods=["GET"]),
        *(Route(path, _page, methods=["GET"]) for path in ("/", "/docs", html_pages.CHAT)),
    ],
    exception_handlers={RequestError: _refuse, HTTPException: _refuse, Exception: _refuse},
)


class OwnPagesOnly:
    """A middleware that keeps BentoML's pages shut, but for the health checks: its front page loads a tracker."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        own = scope["type"] == "http" and scope["path"] not in OPEN
        if own and scope["path"].startswith("/v1/"):  # answered with a slash at its end too, not sent elsewhere
            scope = dict(scope, path=scope["path"].rstrip("/"))
        await (api if own else self._app)(scope, receive, send)
