"""Reading the JSON body of a request, which nobody else has looked at."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.requests import ClientDisconnect, Request

from serving.errors import RequestError

BODY_BYTES = 1 << 20
BODY_S = 20


async def read_json(request: Request) -> dict[str, Any]:
    """The JSON object in the body.

    Raises:
        RequestError: the body is too long or too slow, is not a JSON object, or the client has gone.
    """
    body = bytearray()
    too_long = False
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                # Read on to the end: a client that is still sending would see a broken connection, not the answer.
                too_long = too_long or len(body) + len(chunk) > BODY_BYTES
                if not too_long:
                    body += chunk
    except TimeoutError as error:
        raise RequestError(f"the body took longer than {BODY_S} s", status=408, code="timeout") from error
    except ClientDisconnect as error:
        raise RequestError("the client has gone", status=499) from error
    if too_long:
        raise RequestError(f"the request is longer than {BODY_BYTES} bytes", "messages", code="request_too_large")
    try:
        request_json = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not JSON: {error}") from error
    if not isinstance(request_json, dict):
        raise RequestError("the body must be a JSON object")
    return request_json
