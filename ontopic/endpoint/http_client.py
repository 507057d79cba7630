"""The HTTP client of an endpoint: a reply comes whole, in bounded time and memory, or not at all."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
from openai import DefaultAsyncHttpxClient, OpenAIError

from ontopic.endpoint.server_error import OPTIONS, read_error

MOST_BYTES = 8 * 2**20
"""The longest reply that is read; one with the log-probabilities of 2,000 tokens has half of that."""

_KEPT_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry", "x-request-id", "x-ontopic-record-id")


class UnreadableReplyError(OpenAIError):
    """A reply that cannot be read, and would not be better the next time: the ``openai`` package passes it on."""


class ReplyClient(DefaultAsyncHttpxClient):
    """Reads each reply whole before it gives it on, but for a stream that was asked for and begins.

    The time-out of a request is for all of it, where HTTP clients start anew with each byte. An error in a reply of
    status 200 gets the status that it amounts to, so that it is treated as any other. What no repetition mends is
    marked so, in the header by which OpenAI's own server says it.
    """

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """The reply, read whole.

        Raises:
            UnreadableReplyError: it is too long, wrongly compressed, or leads nowhere.
            httpx2.RequestError: the connection fails, or the time is over.
        """
        seconds = request.extensions.get("timeout", {}).get("read")
        try:
            async with asyncio.timeout(seconds):
                reply = await super().send(request, **options | {"stream": True})
                if options.get("stream") and reply.is_success:
                    return reply  # who reads it minds the time from part to part
                try:
                    body = await _body(reply)
                finally:
                    await reply.aclose()
        except TimeoutError as error:
            raise httpx2.ReadTimeout("the reply was not whole in time", request=request) from error
        except httpx2.DecodingError as error:
            raise UnreadableReplyError("the server's reply is wrongly compressed") from error
        except httpx2.TooManyRedirects as error:
            raise UnreadableReplyError("the server sends its callers round in circles") from error
        except (httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
            raise UnreadableReplyError("the server sends its callers to an address that is none") from error
        return _as_read(request, reply, body=body)


def _as_read(request: httpx2.Request, reply: httpx2.Response, *, body: bytes) -> httpx2.Response:
    status, told = reply.status_code, read_error(reply.status_code, body)
    headers = {name: reply.headers[name] for name in _KEPT_HEADERS if name in reply.headers}
    if told:
        sent = [name for name in OPTIONS if f'"{name}"'.encode() in request.content]
        if told.final or told.is_about_the_record or told.named_option(sent):
            headers["x-should-retry"] = "false"
        if 200 <= status < 300:
            status = 400 if told.status == 200 else told.status
    headers["content-type"] = "text/plain; charset=utf-8"  # whatever the server calls it
    return httpx2.Response(status, headers=headers, content=body, request=reply.request, extensions={"error": told})


async def _body(reply: httpx2.Response) -> bytes:
    chunks, length = [], 0
    async for chunk in reply.aiter_bytes():
        chunks.append(chunk)
        if (length := length + len(chunk)) > MOST_BYTES:
            raise UnreadableReplyError(f"the server's reply is longer than {MOST_BYTES // 2**20} MiB")
    return b"".join(chunks)
