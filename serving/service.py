"""The BentoML service: one model behind an OpenAI-compatible API that stores each answer as a record.

It is set up by environment variables, which ``serving.process.ServedModel`` sets:
    ONTOPIC_MODEL_FOLDER     what ``ontopic.models.load`` loads
    ONTOPIC_MODEL_VERSION    written into each record
    ONTOPIC_MODEL_NAME       the name that clients ask for
    ONTOPIC_TRAFFIC          the traffic store's path or URL
    ONTOPIC_MAX_NEW_TOKENS   no answer is longer
    ONTOPIC_LAUNCHER_PID     optional: the service ends when this process does
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import queue
import re
import signal
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import bentoml
import psutil
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ontopic.records import Record
from ontopic.traffic import TrafficStore

if TYPE_CHECKING:  # torch and transformers take seconds to import, and only the worker needs them
    from transformers import PreTrainedTokenizerBase

    from ontopic.models import Answer, LanguageModel

logger = logging.getLogger("bentoml.ontopic")

TIMEOUT_S = 300
GATHER_S = 0.02
BATCH_SIZE = 32
BATCH_TOKENS = 16_384  # bounds the memory of a batch of long prompts
BODY_BYTES = 1 << 20

# What a request may say besides model, messages and the token limits; None stands for any value.
_HONOURED: dict[str, tuple[Any, ...] | None] = {
    "stream": (False,),
    "n": (1,),
    "temperature": (0,),
    "top_p": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "stop": ([],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "parallel_tool_calls": None,
    "seed": None,
    "user": None,
    "metadata": None,
    "safety_identifier": None,
    "prompt_cache_key": None,
}
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


class RequestError(Exception):
    """A request that gets an error in OpenAI's shape instead of an answer."""

    def __init__(self, message: str, param: str | None = None, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.param, self.status, self.code = param, status, code


@dataclass(frozen=True)
class _Job:
    messages: list[dict[str, str]]
    limit: int
    reply: Future[Answer] = field(default_factory=Future)


class Batches:
    """Generates on one thread, in one batch for all who ask within 20 ms of each other or while the last batch runs.

    Args:
        language_model: used by that thread alone; its tokenizer is not safe to share.
    """

    def __init__(self, language_model: LanguageModel) -> None:
        self._language_model = language_model
        self._context = getattr(language_model.model.config.get_text_config(), "max_position_embeddings", None)
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="batches", daemon=True).start()

    def submit(self, messages: list[dict[str, str]], limit: int) -> Future[Answer]:
        """Queue a conversation for an answer of at most ``limit`` tokens.

        Returns:
            A future that gives the reply, or raises RequestError where the model's template refuses the messages or
            they do not fit in its context, or whatever generation raised.
        """
        job = _Job(messages, limit)
        self._jobs.put(job)
        return job.reply

    def _run(self) -> None:
        while True:
            jobs = [self._jobs.get()]
            with contextlib.suppress(queue.Empty):
                while len(jobs) < BATCH_SIZE:
                    jobs.append(self._jobs.get(timeout=GATHER_S))
            # A cancelled job is one whose client was timed out meanwhile.
            self._answer([job for job in jobs if job.reply.set_running_or_notify_cancel()])

    def _answer(self, jobs: list[_Job]) -> None:
        from ontopic.models import generate

        waiting, longest = [], 1
        for job in jobs:
            try:
                longest = max(longest, self._prompt_tokens(job))
                waiting.append(job)
            except Exception as error:
                job.reply.set_exception(error)
        if not waiting:
            return
        try:
            results = generate(
                self._language_model,
                [job.messages for job in waiting],
                max(job.limit for job in waiting),
                batch_size=max(1, min(BATCH_SIZE, BATCH_TOKENS // longest)),
            )
            replies = [self._cut(result, job.limit) for job, result in zip(waiting, results, strict=True)]
        except Exception as error:
            for job in waiting:
                job.reply.set_exception(error)
            return
        for job, reply in zip(waiting, replies, strict=True):
            job.reply.set_result(reply)

    def _prompt_tokens(self, job: _Job) -> int:
        from jinja2 import TemplateError

        from ontopic.models import chat_prompts

        tokenizer = self._language_model.tokenizer
        try:
            (prompt,) = chat_prompts(tokenizer, [job.messages])
        except TemplateError as error:
            raise RequestError(f"the model's chat template refuses these messages: {error}", "messages") from error
        tokens = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        if self._context is not None and tokens + job.limit > self._context:
            raise RequestError(
                f"the model's context holds {self._context} tokens, and these messages take {tokens} "
                f"besides {job.limit} for the answer",
                "messages",
                code="context_length_exceeded",
            )
        return tokens

    def _cut(self, reply: Answer, limit: int) -> Answer:
        if reply.completion_tokens < limit:
            return reply
        # The end-of-text token would have been one more than the limit, so even a whole answer counts as cut.
        if reply.completion_tokens == limit:
            return replace(reply, finished=False)
        tokenizer = self._language_model.tokenizer
        ids = tokenizer(reply.text, add_special_tokens=False)["input_ids"][:limit]
        return replace(reply, text=str(tokenizer.decode(ids)).strip(), completion_tokens=limit, finished=False)


def control_markers(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """A pattern for the texts that ``tokenizer`` reads as control tokens, such as ``<|im_end|>``."""
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    texts = sorted((text for text in special | set(tokenizer.all_special_tokens) if len(text) > 1), key=len)
    return re.compile("|".join(re.escape(text) for text in reversed(texts)) or "(?!)")


def neutralised(messages: list[dict[str, str]], markers: re.Pattern[str]) -> list[dict[str, str]]:
    """``messages`` with a space inside each marker, so that no text can end its turn and open another role's."""
    return [
        message | {"content": markers.sub(lambda marker: f"{marker[0][0]} {marker[0][1:]}", message["content"])}
        for message in messages
    ]


async def _read_json(request: Request) -> dict[str, Any]:
    body = bytearray()
    too_long = False
    async for chunk in request.stream():
        # Read on to the end: a client that is still sending would see a broken connection, not the answer.
        too_long = too_long or len(body) + len(chunk) > BODY_BYTES
        if not too_long:
            body += chunk
    if too_long:
        raise RequestError(f"the request is longer than {BODY_BYTES} bytes", "messages", code="request_too_large")
    try:
        request_json = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is no JSON: {error}") from error
    if not isinstance(request_json, dict):
        raise RequestError("the body must be a JSON object")
    return request_json


def _checked_messages(given: object) -> list[dict[str, str]]:
    if not isinstance(given, list) or not given:
        raise RequestError("messages must be a list of at least one message", "messages")
    messages = []
    for i, message in enumerate(given):
        name = f"messages[{i}]"
        if not isinstance(message, dict) or message.get("role") not in ("system", "user", "assistant"):
            raise RequestError(f"{name}.role must be system, user or assistant", f"{name}.role")
        messages.append({"role": message["role"], "content": _checked_content(message.get("content"), name)})
    if not any(message["role"] == "user" for message in messages):
        raise RequestError("messages must hold a message of the user", "messages")
    return messages


def _checked_content(content: object, name: str) -> str:
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        parts = [part.get("text") for part in content]
        content = "\n".join(parts) if all(isinstance(part, str) for part in parts) else None
    if not isinstance(content, str):
        raise RequestError(f"{name}.content must be a text or a list of text parts", f"{name}.content")
    if _UNSTORABLE.search(content):
        raise RequestError(f"{name}.content holds a NUL or a lone surrogate, which is no text", f"{name}.content")
    return content


def _checked_limit(body: dict[str, Any], most: int) -> int:
    for param in ("max_completion_tokens", "max_tokens"):
        value = body.get(param)
        if value is not None:
            if type(value) is not int or value < 1:
                raise RequestError(f"{param} must be a whole number of at least 1", param)
            return min(value, most)
    return most


def _check_parameters(body: dict[str, Any], model_name: str) -> None:
    for param, value in body.items():
        if param in ("model", "messages", "max_tokens", "max_completion_tokens") or value is None:
            continue
        if param not in _HONOURED:
            raise RequestError(f"{param} is not supported by this server", param)
        allowed = _HONOURED[param]
        if allowed is not None and value not in allowed:
            wanted = " or ".join(json.dumps(each) for each in allowed)
            raise RequestError(f"{param} must be {wanted} on this server, or left out", param)
    if not isinstance(body.get("model"), str):
        raise RequestError("model must name the model", "model")
    if body["model"] != model_name:
        raise RequestError(f"this server has no such model; it serves {model_name!r}", "model", 404, "model_not_found")


async def chat_completions(request: Request) -> JSONResponse:
    """Answer a conversation greedily; the record is stored before the answer goes out."""
    asked_at, start = datetime.now(UTC), time.perf_counter()
    assistant: Any = request.app.state.assistant
    body = await _read_json(request)
    _check_parameters(body, assistant.model_name)
    messages = _checked_messages(body.get("messages"))
    limit = _checked_limit(body, assistant.max_new_tokens)
    reply = await asyncio.wrap_future(assistant.batches.submit(neutralised(messages, assistant.markers), limit))
    record = Record(
        question=next(message["content"] for message in reversed(messages) if message["role"] == "user"),
        answer=reply.text,
        model_version=assistant.model_version,
        asked_at=asked_at,
        latency_s=time.perf_counter() - start,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        finished=reply.finished,
    )
    try:
        record_id = await anyio.to_thread.run_sync(assistant.traffic.add, record)
    except Exception as error:
        logger.exception("the record could not be stored")
        raise RequestError("the record of this answer could not be stored", None, 503, "record_not_stored") from error
    return JSONResponse(
        {
            "id": f"chatcmpl-{record_id}",
            "object": "chat.completion",
            "created": int(asked_at.timestamp()),
            "model": assistant.model_name,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": reply.text, "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop" if reply.finished else "length",
                }
            ],
            "usage": {
                "prompt_tokens": reply.prompt_tokens,
                "completion_tokens": reply.completion_tokens,
                "total_tokens": reply.prompt_tokens + reply.completion_tokens,
            },
        },
        headers={"x-ontopic-record-id": record_id, "x-ontopic-model-version": assistant.model_version},
    )


async def models(request: Request) -> JSONResponse:
    """The one model that is served."""
    assistant: Any = request.app.state.assistant
    entry = {"id": assistant.model_name, "object": "model", "created": assistant.created, "owned_by": "ontopic"}
    return JSONResponse({"object": "list", "data": [entry]})


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    known = error if isinstance(error, RequestError) else RequestError("the server failed; see its log", status=500)
    kind = "invalid_request_error" if known.status < 500 else "server_error"
    shape = {"message": str(known), "type": kind, "param": known.param, "code": known.code}
    return JSONResponse({"error": shape}, status_code=known.status)


api = Starlette(
    routes=[
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        Route("/v1/models", models, methods=["GET"]),
    ],
    exception_handlers={RequestError: _refuse, Exception: _refuse},
)


@bentoml.asgi_app(api)
@bentoml.service(name="ontopic", workers=1, traffic={"timeout": TIMEOUT_S})
class Assistant:
    """The served model. BentoML calls it ready once this object exists, that is once the model is loaded."""

    def __init__(self) -> None:
        try:
            import torch

            from ontopic.models import load

            torch.set_num_threads(os.cpu_count() or 1)
            language_model = load(Path(os.environ["ONTOPIC_MODEL_FOLDER"]))
            self.model_name = os.environ["ONTOPIC_MODEL_NAME"]
            self.model_version = os.environ["ONTOPIC_MODEL_VERSION"]
            self.max_new_tokens = int(os.environ["ONTOPIC_MAX_NEW_TOKENS"])
            self.traffic = TrafficStore(os.environ["ONTOPIC_TRAFFIC"])
        except BaseException:
            # BentoML would start the worker again and again; a launcher that waits wants to hear of it.
            if _LAUNCHER:
                os.kill(os.getppid(), signal.SIGTERM)
            raise
        self.created = int(time.time())
        self.markers = control_markers(language_model.tokenizer)
        self.batches = Batches(language_model)
        api.state.assistant = self

    @bentoml.on_shutdown
    def close(self) -> None:
        self.traffic.close()


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
