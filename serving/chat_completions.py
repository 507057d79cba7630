"""``/v1/chat/completions``: a chat's answers, whole or as a stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from serving.assistant import ServedAssistant
from serving.chat import TIMEOUT_S, Chat, begin_chat, logprobs_of, usage
from serving.chat_request import CONVERSATION_HEADER, chat_request
from serving.chat_stream import events
from serving.errors import RequestError
from serving.request_body import read_json
from serving.tracing import Trace

Waited = TypeVar("Waited")


async def chat_completions(request: Request) -> Response:
    """Answer a conversation; the records are stored before the answer, or a stream's end, goes out."""
    assistant: ServedAssistant = request.app.state.assistant
    asked_at, start = datetime.now(UTC), time.perf_counter()
    trace = assistant.tracing.begin(request.headers)
    try:
        response = await _answered(request, asked_at=asked_at, start=start, trace=trace)
    except BaseException as error:
        trace.end(error)
        if isinstance(error, Exception) and (not isinstance(error, RequestError) or error.status >= 500):
            assistant.requests.count(failed=True)
        raise
    if not isinstance(response, StreamingResponse):  # a stream is counted at its end
        assistant.requests.count(failed=False)
        trace.end()
    return response


async def _answered(request: Request, *, asked_at: datetime, start: float, trace: Trace) -> Response:
    assistant: ServedAssistant = request.app.state.assistant
    body = await read_json(request)
    passes_on = assistant.deployment.passes_on
    if passes_on and body.get("model") == assistant.deployment.version:
        body |= {"model": assistant.model_name}  # a client that has only been given another address
    asked = chat_request(
        body,
        assistant.model_name,
        most_tokens=assistant.max_new_tokens,
        conversation_id=request.headers.get(CONVERSATION_HEADER, ""),
        passes_on=passes_on,
    )
    chat = await begin_chat(asked, assistant, caller=request.state.caller, asked_at=asked_at, start=start, trace=trace)
    if asked.stream:
        if passes_on:
            await _while_connected(chat, request, waiting=chat.first_piece())
        return StreamingResponse(
            events(chat),
            media_type="text/event-stream",
            # nginx, for one, would hold the events back until the stream's end.
            headers={"cache-control": "no-cache", "x-accel-buffering": "no", **chat.headers()},
        )
    answers = await _while_connected(chat, request, waiting=chat.users_answers())
    await chat.store(answers)
    choices = [
        {
            "index": i,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": logprobs_of(answer.logprobs) if asked.sampling.top_logprobs is not None else None,
            "finish_reason": answer.finish_reason,
        }
        for i, answer in enumerate(answers)
    ]
    content = chat.envelope("chat.completion") | {"choices": choices, "usage": usage(answers)}
    return JSONResponse(content, headers=chat.headers())


async def _while_connected(chat: Chat, request: Request, *, waiting: Coroutine[Any, Any, Waited]) -> Waited:
    """What is waited for, while the client waits too; where there is none, the answers are given up.

    Raises:
        RequestError: the client has gone, it took too long, or the model failed.
    """
    gone = asyncio.ensure_future(_hung_up(request))
    answering = asyncio.ensure_future(waiting)
    try:
        await asyncio.wait({gone, answering}, timeout=TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            status, said = (499, "the client has gone") if gone.done() else (504, f"no answer within {TIMEOUT_S} s")
            raise RequestError(said, status=status, code="timeout")
        return answering.result()
    except BaseException:
        chat.give_up()
        raise
    finally:
        gone.cancel()
        answering.cancel()


async def _hung_up(request: Request) -> None:
    """Returns when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
