"""A server behind an OpenAI-compatible API in place of a model's weights: the service passes requests on to it.

Chosen by ``ONTOPIC_BACKEND=openai``. Neither torch nor Transformers is imported.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2
from openai import AsyncOpenAI, AsyncStream, OpenAIError

from ontopic.config.settings import EndpointSettings, proxied
from ontopic.endpoint.client import key_in, llm_client, shown_url
from ontopic.endpoint.inert import one_line
from ontopic.endpoint.replies import read_completion, read_usage
from ontopic.models.answer import Generated, Generation, Piece, TokenLogprob
from serving.async_batch import AsyncBatch
from serving.deployment import Deployment
from serving.upstream_errors import BrokenOffError, error_for_client, error_for_log

_CHARACTERS_A_TOKEN = 4  # of English text; counted with where the server does not count
_OWN = ("model", "messages", "n", "stream", "stream_options", "metadata")  # of a request; set for each of its choices
_LONGEST_NAME = 100


def upstream_of(environment: Mapping[str, str]) -> EndpointSettings:
    """The server that the environment names."""
    return proxied(
        environment["ONTOPIC_UPSTREAM_MODEL"],
        environment["ONTOPIC_UPSTREAM_URL"],
        api_key_variable=environment.get("ONTOPIC_UPSTREAM_KEY_VARIABLE", "OPENAI_API_KEY"),
        timeout_s=float(environment.get("ONTOPIC_UPSTREAM_TIMEOUT_S", "120")),
    )


def begin(environment: Mapping[str, str] = os.environ) -> Deployment:
    """What passes requests on to the server that the environment names. Records have that model's name as the version.

    Raises:
        UserError: its address is not one, or its key cannot be sent.
    """
    settings = upstream_of(environment)
    return Deployment(settings.model, GuessedPrompts(), UpstreamBatch(settings), passes_on=True)


class GuessedPrompts:
    """The number of tokens in a conversation, as far as who has no tokenizer can tell: for the limits of keys."""

    def ids(self, messages: Sequence[Mapping[str, str]], limit: int) -> list[int]:  # the limit is the server's affair
        """So many zeros."""
        return [0] * sum(4 + len(message["content"]) // _CHARACTERS_A_TOKEN for message in messages)


class UpstreamBatch(AsyncBatch):
    """Another server's answers, a request each, also of the choices of one request: not every server knows ``n``.

    A request goes on as its client sent it, with the server's name for the model and at most as many tokens as the
    service allows. What is answered whole is asked for whole, a stream as a stream. An answer that is cancelled closes
    its connection, at which servers end it.

    Args:
        most_waiting: as ``AsyncBatch`` takes it.

    Raises:
        UserError: the address is not one, or the key cannot be sent.
    """

    def __init__(self, settings: EndpointSettings, *, most_waiting: int = 1024) -> None:
        self._settings, self._counts_streams = settings, True
        self._key = key_in(settings.api_key_variable)
        limits = httpx2.Limits(max_connections=2 * most_waiting, max_keepalive_connections=64)
        self._client: AsyncOpenAI = llm_client(settings, limits=limits)
        self._address = shown_url(self._client.base_url).rstrip("/")
        super().__init__("upstream", most_waiting=most_waiting)

    async def _closed(self) -> None:
        await self._client.close()

    async def _generated(self, generation: Generation) -> Generated:
        asked = _request(generation, self._settings.model)
        try:
            if generation.on_piece is None:
                return await self._whole(generation, asked)
            return await self._streamed(generation, asked)
        except (OpenAIError, BrokenOffError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            error_for_log(error, asked["messages"], key=self._key, address=self._address)
            raise error_for_client(error, key=self._key, timeout_s=self._settings.timeout_s) from error

    async def _whole(self, generation: Generation, asked: dict[str, Any]) -> Generated:
        reply = await self._client.post("/chat/completions", cast_to=httpx2.Response, body=asked)
        self._begins(generation)
        try:
            completion = read_completion(reply.content)
        except ValueError as error:
            raise BrokenOffError(str(error)) from error
        choice = _choice(completion)
        message = choice.get("message")
        if not isinstance(message, dict):
            raise BrokenOffError("the reply is not a chat completion: its choice has no message")
        text = _text(message)
        prompt_tokens, completion_tokens = read_usage(completion)
        return Generated(
            text,
            len(generation.ids) if prompt_tokens is None else prompt_tokens,
            -(-len(text) // _CHARACTERS_A_TOKEN) if completion_tokens is None else completion_tokens,
            _reason(choice.get("finish_reason") or "stop"),
            _logprobs(choice.get("logprobs")),
            metadata=_origin(completion),
        )

    async def _streamed(self, generation: Generation, asked: dict[str, Any]) -> Generated:
        text, n, reason, logprobs = "", 0, "", list[TokenLogprob]()
        prompt_tokens, completion_tokens = None, None
        origin: dict[str, str] = {}
        async with await self._stream(asked) as chunks:
            async for chunk in chunks:
                self._begins(generation)
                if isinstance(chunk, dict) and chunk.get("usage"):
                    prompt_tokens, completion_tokens = read_usage(chunk)
                origin |= _origin(chunk)
                if not isinstance(chunk, dict) or not chunk.get("choices"):
                    continue
                choice = _choice(chunk)
                reason = choice.get("finish_reason") or reason
                delta = choice.get("delta")
                said, new = _text(delta) if isinstance(delta, dict) else "", _logprobs(choice.get("logprobs"))
                if not said and not new:
                    continue
                text, n = text + said, n + max(1, len(new))
                logprobs += new
                if generation.on_piece:
                    generation.on_piece(Piece(said, n, new))
        if not reason:
            raise BrokenOffError("the stream ended before the answer did")
        return Generated(
            text,
            len(generation.ids) if prompt_tokens is None else prompt_tokens,
            n if completion_tokens is None else completion_tokens,
            _reason(reason),
            tuple(logprobs),
            metadata=origin,
        )

    async def _stream(self, asked: dict[str, Any]) -> AsyncStream[object]:
        """The stream of a reply, with the tokens counted at its end where the server can do that."""
        options = {"stream_options": {"include_usage": True}} if self._counts_streams else {}

        async def begun(body: dict[str, Any]) -> AsyncStream[object]:
            return await self._client.post(
                "/chat/completions", cast_to=object, body=body, stream=True, stream_cls=AsyncStream[object]
            )

        try:
            return await begun(asked | {"stream": True} | options)
        except OpenAIError as error:
            if not options or "stream_options" not in str(getattr(error, "body", "")):
                raise
            stream = await begun(asked | {"stream": True})
            self._counts_streams = False  # it was the option, and not the request
            return stream


def _request(generation: Generation, model: str) -> dict[str, Any]:
    """What the server is asked for one choice."""
    sent, sampling = generation.sent, generation.sampling
    asked = {"model": model, "messages": sent["messages"]}
    asked |= {name: value for name, value in sent.items() if name not in _OWN}
    for name in ("max_tokens", "max_completion_tokens"):
        if name in sent:
            asked[name] = min(sampling.limit, sent[name])
    if sampling.seed is not None:
        asked["seed"] = sampling.seed
    if sent.get("store") and "metadata" in sent:
        asked["metadata"] = sent["metadata"]  # OpenAI takes it for what it stores alone
    return asked


def _choice(completion: Any) -> Mapping[str, Any]:
    choices = completion.get("choices") if isinstance(completion, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise BrokenOffError("the reply is not a chat completion: it has no choices")
    return choices[0]


def _text(message: Mapping[str, Any]) -> str:
    """What a message or a part of one says; a refusal is an answer too."""
    said = "".join(part for part in (message.get("content"), message.get("refusal")) if isinstance(part, str))
    return said.encode(errors="replace").decode().replace("\0", "")  # what no database takes


def _reason(reason: object) -> str:
    return str(reason) if reason in ("length", "content_filter") else "stop"


def _origin(completion: Any) -> dict[str, str]:
    """Which model answered, by the server's own words."""
    if not isinstance(completion, dict):
        return {}
    given = {"served_model": completion.get("model"), "system_fingerprint": completion.get("system_fingerprint")}
    return {name: one_line(said, _LONGEST_NAME) for name, said in given.items() if isinstance(said, str) and said}


def _logprobs(given: Any) -> tuple[TokenLogprob, ...]:
    """The log-probabilities of a choice or a part of one; none where they are not of OpenAI's form."""

    def token(entry: Mapping[str, Any]) -> bytes:
        return bytes(entry["bytes"]) if entry.get("bytes") else entry["token"].encode(errors="replace")

    try:
        return tuple(
            TokenLogprob(
                token(entry),
                float(entry["logprob"]),
                tuple((token(other), float(other["logprob"])) for other in entry.get("top_logprobs") or ()),
            )
            for entry in (given or {}).get("content") or ()
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return ()
