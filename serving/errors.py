"""Errors as OpenAI's API gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse


class RequestError(Exception):
    """A request that gets an error in OpenAI's shape instead of an answer."""

    def __init__(
        self,
        message: str,
        param: str | None = None,
        *,
        status: int = 400,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.param, self.status, self.code, self.retry_after_s = param, status, code, retry_after_s


def error_response(error: RequestError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The response that tells of an error."""
    given = dict(headers or {})
    if error.retry_after_s is not None:
        given["retry-after"] = str(error.retry_after_s)
    return JSONResponse({"error": error_body(error)}, status_code=error.status, headers=given)


def error_body(error: RequestError) -> dict[str, Any]:
    """What stands under ``error`` in a response or an event."""
    kind = "rate_limit_error" if error.status == 429 else "invalid_request_error"
    kind = kind if error.status < 500 else "server_error"
    param = None if error.param is None else _told(error.param, 80)
    return {"message": _told(str(error), 1000), "type": kind, "param": param, "code": error.code}


def _told(text: str, most: int) -> str:
    """The beginning of a text that may hold what a client sent, without lone surrogates, which no response can hold."""
    shown = text if len(text) <= most else f"{text[: most - 1]}…"
    return shown.encode(errors="backslashreplace").decode()
