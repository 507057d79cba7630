"""The BentoML service: one model behind an OpenAI-compatible API that stores each answer as a record.

It is set up by environment variables, which ``serving.process.ServedModel`` sets:
    ONTOPIC_MODEL_FOLDER     what ``ontopic.models.loading.load`` loads
    ONTOPIC_MODEL_URI        optional: loaded instead, from MLflow (``serving.model_source``)
    ONTOPIC_MODEL_VERSION    written into each record
    ONTOPIC_MODEL_NAME       the name that clients ask for
    ONTOPIC_TRAFFIC          the traffic store's path or URL
    ONTOPIC_SPOOL            optional: a folder for records that the store can't take now
    ONTOPIC_MAX_NEW_TOKENS   no answer is longer
    ONTOPIC_WINDOWS          optional: what ``watch`` keeps, for the verdicts among the metrics
    ONTOPIC_BACKEND          optional: vllm, for ``serving.vllm_backend``
    ONTOPIC_FOLLOW           optional: a folder for weights; the champion's alias in MLflow is followed
    ONTOPIC_LAUNCHER_PID     optional: the service ends when this process does
and by those of ``serving.access``, which say who may call it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import bentoml
import psutil
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ontopic.records import Record
from ontopic.traffic.spool import Spool
from ontopic.traffic.store import TrafficStore
from serving import metrics, openapi
from serving.access import OPEN, Access, Caller
from serving.chat_request import ChatRequest, chat_request
from serving.errors import RequestError, error_body, error_response
from serving.feedback_request import feedback_request
from serving.model_source import model_folder

if TYPE_CHECKING:  # torch and transformers take seconds to import, and only the worker needs them
    from ontopic.models.generation import Generated, Generation, Piece, TokenLogprob
    from serving.deployment import Deployment

logger = logging.getLogger("bentoml.ontopic")

TIMEOUT_S = 300
BODY_BYTES = 1 << 20
BODY_S = 20


async def _read_json(request: Request) -> dict[str, Any]:
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
        raise RequestError(f"the body is no JSON: {error}") from error
    if not isinstance(request_json, dict):
        raise RequestError("the body must be a JSON object")
    return request_json


@dataclass
class _Chat:
    """A request under way: an answer and a record a choice."""

    request: ChatRequest
    assistant: Any
    deployment: Deployment
    generations: list[Generation]
    ids: list[str]
    pieces: asyncio.Queue[tuple[int, Piece | None]]
    asked_at: datetime
    start: float

    async def answers(self) -> list[Generated]:
        """The whole answers.

        Raises:
            RequestError: the model failed.
        """
        try:
            return await asyncio.gather(*(asyncio.wrap_future(each.done) for each in self.generations))
        except Exception as error:
            logger.exception("generation failed")
            raise RequestError("the model failed; see the server's log", status=500) from error

    def give_up(self) -> None:
        """Free the places of answers that nobody waits for any more."""
        for each in self.generations:
            each.done.cancel()

    async def store(self, answers: Sequence[Generated]) -> None:
        """Store a record an answer.

        Raises:
            RequestError: they could not be stored.
        """
        latency_s = time.perf_counter() - self.start
        metrics.latency(latency_s)
        metrics.tokens(answers[0].prompt_tokens, sum(answer.completion_tokens for answer in answers))
        records = [
            Record(
                question=self.request.question,
                answer=answer.text,
                id=record_id,
                model_version=self.deployment.version,
                asked_at=self.asked_at,
                latency_s=latency_s,
                prompt_tokens=answer.prompt_tokens,
                completion_tokens=answer.completion_tokens,
                finished=answer.finished,
            )
            for record_id, answer in zip(self.ids, answers, strict=True)
        ]
        try:
            for record in records:
                await anyio.to_thread.run_sync(self.assistant.keep, record)
        except Exception as error:
            logger.exception("the record could not be stored")
            message = "the record of this answer could not be stored"
            raise RequestError(message, None, status=503, code="record_not_stored") from error

    def headers(self) -> dict[str, str]:
        """What names the records and the model version."""
        return {
            "x-ontopic-record-id": ",".join(self.ids),
            "x-ontopic-model-version": self.deployment.version,
        }

    def envelope(self, kind: str) -> dict[str, Any]:
        """What an answer and each chunk of a stream begin with."""
        return {
            "id": f"chatcmpl-{self.ids[0]}",
            "object": kind,
            "created": int(self.asked_at.timestamp()),
            "model": self.assistant.model_name,
        }


async def chat_completions(request: Request) -> Response:
    """Answer a conversation; the records are stored before the answer, or a stream's end, goes out."""
    asked_at, start = datetime.now(UTC), time.perf_counter()
    assistant: Any = request.app.state.assistant
    body = await _read_json(request)
    asked = chat_request(body, assistant.model_name, most_tokens=assistant.max_new_tokens)
    chat = await _begin(asked, assistant, caller=request.state.caller, asked_at=asked_at, start=start)
    if asked.stream:
        return StreamingResponse(
            _events(chat),
            media_type="text/event-stream",
            headers={"cache-control": "no-cache", **chat.headers()},
        )
    gone = asyncio.ensure_future(_hung_up(request))
    answering = asyncio.ensure_future(chat.answers())
    try:
        await asyncio.wait({gone, answering}, timeout=TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            status, said = (499, "the client has gone") if gone.done() else (504, f"no answer within {TIMEOUT_S} s")
            raise RequestError(said, status=status, code="timeout")
        answers = answering.result()
    finally:
        gone.cancel()
        answering.cancel()
        chat.give_up()
    await chat.store(answers)
    choices = [
        {
            "index": i,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": _logprobs(answer.logprobs) if asked.sampling.top_logprobs is not None else None,
            "finish_reason": answer.finish_reason,
        }
        for i, answer in enumerate(answers)
    ]
    content = chat.envelope("chat.completion") | {"choices": choices, "usage": _usage(answers)}
    return JSONResponse(content, headers=chat.headers())


async def _begin(asked: ChatRequest, assistant: Any, *, caller: Caller, asked_at: datetime, start: float) -> _Chat:
    """Queue the answers of a request.

    Raises:
        RequestError: the prompt is refused, the caller's tokens are used up, too many wait, or the service is stopping.
    """
    from ontopic.models.generation import Generation, OverloadedError

    loop, pieces = asyncio.get_running_loop(), asyncio.Queue[tuple[int, Any]]()

    def passing(i: int) -> Callable[[Any], object]:
        return lambda piece: loop.call_soon_threadsafe(pieces.put_nowait, (i, piece))

    tokens_taken = False
    while True:
        deployment: Deployment = assistant.deployment
        ids = await anyio.to_thread.run_sync(deployment.prompts.ids, asked.messages, asked.sampling.limit)
        if not tokens_taken:
            caller.allowance.take_tokens(len(ids) + asked.n * asked.sampling.limit)
            tokens_taken = True
        generations = []
        for i in range(asked.n):
            sampling = asked.sampling
            if sampling.seed is not None:
                sampling = replace(sampling, seed=sampling.seed + i)
            generation = Generation(ids, sampling, passing(i) if asked.stream else None)
            if asked.stream:
                generation.done.add_done_callback(lambda _, i=i: passing(i)(None))  # type: ignore[misc]
            generations.append(generation)
        try:
            deployment.batch.submit(generations)
            break
        except OverloadedError as error:
            raise RequestError(
                str(error), None, status=429, code="overloaded", retry_after_s=error.retry_after_s
            ) from error
        except RuntimeError as error:
            if assistant.deployment is deployment:
                raise RequestError(
                    "the service is stopping; ask again", None, status=503, code="stopping", retry_after_s=1
                ) from error
            # Another version took its place meanwhile: that one answers.
    record_ids = [uuid.uuid4().hex for _ in generations]
    return _Chat(asked, assistant, deployment, generations, record_ids, pieces, asked_at, start)


async def _events(chat: _Chat) -> AsyncIterator[str]:
    """A stream's server-sent events. A client that leaves frees its place; what it was sent is stored as cut."""
    envelope = chat.envelope("chat.completion.chunk")
    with_usage = {"usage": None} if chat.request.include_usage else {}
    with_logprobs = chat.request.sampling.top_logprobs is not None

    def event(choices: list[dict[str, Any]], **more: Any) -> str:
        return f"data: {json.dumps(envelope | {'choices': choices} | with_usage | more)}\n\n"

    def choice(
        i: int, delta: dict[str, Any], *, reason: str | None = None, piece: Piece | None = None
    ) -> dict[str, Any]:
        logprobs = _logprobs(piece.logprobs) if piece and with_logprobs else None
        return {"index": i, "delta": delta, "logprobs": logprobs, "finish_reason": reason}

    sent: list[list[str]] = [[] for _ in chat.generations]
    answers: list[Generated] | None = None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            for i in range(len(chat.generations)):
                yield event([choice(i, {"role": "assistant", "content": "", "refusal": None})])
            running = len(chat.generations)
            while running:
                i, piece = await chat.pieces.get()
                if piece is None:
                    running -= 1
                    continue
                if piece.text and not any(map(any, sent)):
                    metrics.first_token(time.perf_counter() - chat.start)
                sent[i].append(piece.text)
                yield event([choice(i, {"content": piece.text}, piece=piece)])
            answers = await chat.answers()
            await chat.store(answers)
        for i, answer in enumerate(answers):
            yield event([choice(i, {}, reason=answer.finish_reason)])
        if chat.request.include_usage:
            yield event([], usage=_usage(answers))
        yield "data: [DONE]\n\n"
    except TimeoutError:
        late = RequestError(f"no answer within {TIMEOUT_S} s", status=504, code="timeout")
        yield f"data: {json.dumps({'error': error_body(late)})}\n\n"
    except RequestError as error:
        yield f"data: {json.dumps({'error': error_body(error)})}\n\n"
    finally:
        chat.give_up()
        if answers is None and any(map(any, sent)):
            with anyio.CancelScope(shield=True):
                await _store_cut(chat, ["".join(texts) for texts in sent])


async def _store_cut(chat: _Chat, texts: Sequence[str]) -> None:
    """Store what a client was sent before the stream broke off."""
    from ontopic.models.generation import Generated

    cut = [
        Generated(text, len(each.ids), each.completion_tokens, "length")
        for text, each in zip(texts, chat.generations, strict=True)
    ]
    with contextlib.suppress(RequestError):  # it was logged, and there is nobody left to tell
        await chat.store(cut)


def _usage(answers: Sequence[Generated]) -> dict[str, int]:
    prompt, completion = answers[0].prompt_tokens, sum(answer.completion_tokens for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _logprobs(logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    def entry(token: str, logprob: float) -> dict[str, Any]:
        return {"token": token, "logprob": logprob, "bytes": list(token.encode())}

    content = [
        entry(each.token, each.logprob) | {"top_logprobs": [entry(*other) for other in each.top]} for each in logprobs
    ]
    return {"content": content, "refusal": None}


async def _hung_up(request: Request) -> None:
    """Returns when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def models(request: Request) -> JSONResponse:
    """The one model that is served."""
    assistant: Any = request.app.state.assistant
    entry = {"id": assistant.model_name, "object": "model", "created": assistant.created, "owned_by": "ontopic"}
    entry["version"] = assistant.deployment.version
    return JSONResponse({"object": "list", "data": [entry]})


async def feedback(request: Request) -> JSONResponse:
    """Keep what somebody thought of an answer."""
    assistant: Any = request.app.state.assistant
    body = await _read_json(request)
    asked = feedback_request(body, request.state.caller.name)
    try:
        known = await anyio.to_thread.run_sync(assistant.traffic.add_feedback, asked)
    except SQLAlchemyError as error:
        logger.exception("the feedback could not be stored")
        raise RequestError("the feedback could not be stored", None, status=503, code="feedback_not_stored") from error
    if not known:
        raise RequestError("there is no record of this id", "record_id", status=404, code="record_not_found")
    return JSONResponse({"object": "feedback", "record_id": asked.record_id, "thumb": asked.thumb})


async def openapi_document(request: Request) -> JSONResponse:
    """``/openapi.json``."""
    return JSONResponse(openapi.document(request.app.state.assistant.model_name))


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    if isinstance(error, HTTPException):
        return error_response(RequestError(error.detail, status=error.status_code), error.headers)
    known = error if isinstance(error, RequestError) else RequestError("the server failed; see its log", status=500)
    # What is left of a body that took too long is not read, so the connection is of no use any more.
    return error_response(known, {"connection": "close"} if known.status == 408 else None)


api = Starlette(
    routes=[
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        Route("/v1/feedback", feedback, methods=["POST"]),
        Route("/v1/models", models, methods=["GET"]),
        Route("/metrics", metrics.page, methods=["GET"]),
        Route("/openapi.json", openapi_document, methods=["GET"]),
    ],
    exception_handlers={RequestError: _refuse, HTTPException: _refuse, Exception: _refuse},
)


@bentoml.asgi_app(api)
@bentoml.service(name="ontopic", workers=1, traffic={"timeout": TIMEOUT_S}, metrics={"enabled": False})
class Assistant:
    """The served model. BentoML calls it ready once this object exists, that is once the model is loaded."""

    def __init__(self) -> None:
        try:
            import torch

            from serving.deployment import ChampionFollower, deploy

            torch.set_num_threads(os.cpu_count() or 1)
            self.deployment = deploy(model_folder(os.environ), os.environ["ONTOPIC_MODEL_VERSION"])
            self.model_name = os.environ["ONTOPIC_MODEL_NAME"]
            self.max_new_tokens = int(os.environ["ONTOPIC_MAX_NEW_TOKENS"])
            self.traffic = TrafficStore(os.environ["ONTOPIC_TRAFFIC"])
            self.spool = None
            if folder := os.environ.get("ONTOPIC_SPOOL"):
                self.spool = Spool(Path(folder), self.traffic)
        except BaseException:
            # BentoML would start the worker again and again; a launcher that waits wants to hear of it.
            if _LAUNCHER:
                os.kill(os.getppid(), signal.SIGTERM)
            raise
        self.created = int(time.time())
        metrics.deployed(self.deployment.version)
        self.follower = None
        if state := os.environ.get("ONTOPIC_FOLLOW"):
            self.follower = ChampionFollower(
                self.model_name, Path(state), deployed=lambda: self.deployment, put=self._put
            )
        api.state.assistant = self

    def keep(self, record: Record) -> None:
        """Store a record, or, where the store can't be written and there is a spool, keep it there.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: neither could be done.
        """
        if self.spool is not None and self.spool.behind:
            self.spool.add(record)
            return
        try:
            self.traffic.add(record)
        except SQLAlchemyError:
            if self.spool is None:
                raise
            logger.exception("the record could not be stored; it is kept in the spool")
            self.spool.add(record)

    def _put(self, deployment: Deployment) -> None:
        self.deployment = deployment

    def __is_ready__(self) -> bool:
        """Whether a question could be answered and its record stored; BentoML's ``/readyz`` asks.

        Raises:
            HTTPException: the traffic store cannot be written.
        """
        try:
            # What is older than the year 1: a write that changes nothing.
            self.traffic.prune(datetime.now(UTC).replace(tzinfo=None) - datetime.min)
        except Exception as error:
            if self.spool is not None:
                return True
            logger.exception("the traffic store cannot be written")
            raise HTTPException(503, "the traffic store cannot be written; see the server's log") from error
        return True

    @bentoml.on_shutdown
    def close(self) -> None:
        if self.follower:
            self.follower.close()
        self.deployment.batch.close(timeout_s=1)
        if self.spool:
            self.spool.close()
        self.traffic.close()


class _OwnPagesOnly:
    """A middleware that keeps BentoML's pages shut, but for the health checks: its front page loads a tracker."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        own = scope["type"] == "http" and scope["path"] not in OPEN
        await (api if own else self._app)(scope, receive, send)


_service: Any = Assistant  # what the decorators made of it
_service.add_asgi_middleware(metrics.CountRequests)
_service.add_asgi_middleware(Access)
_service.add_asgi_middleware(_OwnPagesOnly)


def _end_with(launcher: int, parent: int) -> None:
    while os.getppid() == parent and psutil.pid_exists(launcher):
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(20)
    os.kill(os.getpid(), signal.SIGKILL)


_LAUNCHER = int(os.environ.get("ONTOPIC_LAUNCHER_PID", "0"))
if _LAUNCHER:
    # BentoML imports this module in its supervisor, the launcher's child, and in the worker, the supervisor's child:
    # each watches its own parent, so that neither outlives a launcher killed with kill -9.
    threading.Thread(target=_end_with, args=(_LAUNCHER, os.getppid()), name="watch", daemon=True).start()
