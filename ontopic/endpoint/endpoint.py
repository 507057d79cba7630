"""The engine behind every LLM judge and teacher: many prompts, asked of an OpenAI-compatible server at once."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import re
import threading
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import httpx2
from openai import (
    APIStatusError,
    AsyncOpenAI,
    BadRequestError,
    DefaultAsyncHttpxClient,
    OpenAIError,
    UnprocessableEntityError,
)

from ontopic.config.settings import EndpointSettings
from ontopic.errors import UserError
from ontopic.judges.judge import Account

logger = logging.getLogger(__name__)

# Prompts taken from a stream ahead of the answer that is awaited, for each request under way: enough to keep the
# server busy while one request backs off, few enough to hold in memory.
_WINDOW = 16
_TOP_LOGPROBS = 20  # the most that OpenAI and vLLM give


@dataclass(frozen=True)
class Prompt:
    """One chat to be completed, at temperature 0.

    Attributes:
        key: prompts of one key ask for the same, though the fences in their texts differ.
        schema: JSON schema that the reply should have; left out where the server refuses it.
        logprobs: whether to ask for the log-probabilities of the reply's tokens; left out where the server refuses it.
    """

    messages: Sequence[Mapping[str, str]]
    key: bytes
    schema: Mapping[str, Any] | None = None
    logprobs: bool = False


@dataclass(frozen=True)
class Token:
    """A token of a reply, in UTF-8, and the log-probabilities of the likeliest tokens at its place, its own among
    them."""

    text: bytes
    top: Mapping[bytes, float]


@dataclass(frozen=True)
class Reply:
    """What came of a prompt.

    Attributes:
        text: what the model says; empty where it says nothing or there is a ``failure``.
        tokens: with their log-probabilities, where these were asked for and the server gives them.
        finish_reason: the server's word for why the model stopped: ``stop``, ``length``, ``content_filter``.
        failure: why there is no completion; ``None`` where there is one.
    """

    text: str = ""
    tokens: Sequence[Token] = ()
    finish_reason: str | None = None
    failure: str | None = None


Answer = TypeVar("Answer")
Result = TypeVar("Result")


@dataclass
class _Asked(Generic[Answer]):
    """A prompt on its way, and what came of it."""

    prompt: Prompt
    answer: Answer | None = None
    error: Exception | None = None
    is_done: bool = False


class Endpoint:
    """A model behind an OpenAI-compatible server. Several threads may ask at once; they share limit and budget.

    A request is sent again by the ``openai`` package, ``max_retries`` times, after 408, 409, 429 and 5xx, a time-out,
    or a connection that is refused or lost, also in the middle of a reply. It waits as long as the server's
    ``Retry-After`` says (seconds, a fraction of one, or an HTTP date; also ``retry-after-ms``) up to 120 s; a server
    that names a longer time is not asked again. One that names none is asked after 0.5 s, then twice as long each time
    up to 8 s, less a random quarter at most. Each request carries an ``Idempotency-Key`` that its repetitions share.

    A server that refuses structured output or log-probabilities (400 or 422) is asked without, then and later; so is
    one that names ``temperature`` in its refusal.

    A budget stops before the request that would follow its end; those under way then are still paid for.

    Attributes:
        base_url: the server; ``None`` for OpenAI's own.
        account: what was used so far.

    Raises:
        UserError: a budget in dollars without a price; an address that is none.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        prices = (settings.usd_per_million_prompt_tokens, settings.usd_per_million_completion_tokens)
        self._prices = None if prices[0] is None or prices[1] is None else (prices[0], prices[1])
        if settings.budget_usd is not None and self._prices is None:
            raise UserError(
                "budget_usd needs the price: set usd_per_million_prompt_tokens and usd_per_million_completion_tokens"
            )
        self.settings = settings
        self.base_url = _base_url(settings)
        self.account = Account(usd=None if self._prices is None else 0.0)
        self._client: AsyncOpenAI | None = None
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._refused: set[str] = set()
        self._uncounted = False
        self._warned: set[str] = set()

    def ask_all(self, asked: Iterable[Prompt | Answer], read: Callable[[Prompt, Reply], Answer]) -> Iterator[Answer]:
        """Ask many prompts at once; yields in order, and takes from ``asked`` only a little ahead of that.

        Args:
            asked: prompts, and among them answers that are known already, which are passed on in their place. A prompt
                whose key is under way already waits for that one's answer.
            read: makes an answer of a reply, on another thread and as soon as the reply is there.

        Raises:
            UserError: no API key is set.
            Exception: whatever ``asked`` and ``read`` raise. Requests under way are then given up, as they are when
                the iterator is closed.
        """
        client = self._opened()
        window: deque[_Asked[Answer] | Answer] = deque()
        under_way: dict[bytes, _Asked[Answer]] = {}
        tasks: set[asyncio.Task[None]] = set()
        # The two threads share one interpreter lock, and each time that one wakes the other costs milliseconds while
        # both are busy: prompts are handed over, and answers taken, in chunks, though never while the server idles.
        chunk = self.settings.concurrency
        fresh: list[_Asked[Answer]] = []
        handed_over = finished = awaited = 0
        enough = threading.Event()

        async def one(asked_one: _Asked[Answer]) -> None:
            nonlocal finished
            try:
                async with self._slots:
                    reply = await self._ask(client, asked_one.prompt)
                asked_one.answer = read(asked_one.prompt, reply)
            except Exception as error:
                asked_one.error = error
            finally:
                asked_one.is_done = True
                finished += 1
                if finished in (awaited, handed_over):
                    enough.set()

        def start(chunk_of: Sequence[_Asked[Answer]]) -> None:
            for each in chunk_of:
                task = _loop().create_task(one(each))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

        def hand_over() -> None:
            nonlocal fresh, handed_over
            if fresh:
                handed_over += len(fresh)
                _loop().call_soon_threadsafe(start, fresh)
                fresh = []

        def is_ready() -> bool:
            return not isinstance(window[0], _Asked) or window[0].is_done

        def wait_for_first() -> None:
            nonlocal awaited
            hand_over()
            while not is_ready():
                enough.clear()
                awaited = min(finished + chunk, handed_over)
                if finished < awaited and not is_ready():
                    enough.wait()

        def first() -> Answer:
            entry = window.popleft()
            if not isinstance(entry, _Asked):
                return entry
            # Not before: what looked for the answer where ``read`` put it, and missed it, may still come for it here.
            under_way.pop(entry.prompt.key, None)
            if entry.error:
                raise entry.error
            return cast(Answer, entry.answer)

        try:
            for item in asked:
                if not isinstance(item, Prompt):
                    window.append(item)
                elif item.key in under_way:
                    self.account.cached += 1
                    window.append(under_way[item.key])
                else:
                    under_way[item.key] = _Asked(item)
                    fresh.append(under_way[item.key])
                    window.append(fresh[-1])
                    if len(fresh) >= chunk or handed_over - finished < self.settings.concurrency:
                        hand_over()
                if len(window) > _WINDOW * self.settings.concurrency:
                    wait_for_first()
                while window and is_ready():
                    yield first()
            while window:
                wait_for_first()
                yield first()
        finally:
            _loop().call_soon_threadsafe(lambda: [task.cancel() for task in tasks])

    async def ask(self, prompt: Prompt) -> Reply:
        """What comes of one prompt: for frameworks that ask one at a time. May be awaited in any event loop.

        Raises:
            UserError: no API key is set.
        """
        client = self._opened()

        async def one() -> Reply:
            async with self._slots:
                return await self._ask(client, prompt)

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(one(), _loop()))

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run what awaits ``ask``, also where the caller runs an event loop already, as in a notebook."""
        running = asyncio.run_coroutine_threadsafe(work, _loop())
        try:
            return running.result()
        except BaseException:  # also Ctrl-C: nothing goes on in the background
            running.cancel()
            raise

    def check(self) -> None:
        """Fail now, and not at the first prompt, where the key is missing.

        Raises:
            UserError: no API key is set.
        """
        self._opened()

    def warn_once(self, message: str) -> None:
        """Log a warning about this server, unless it was logged before."""
        if message not in self._warned:
            self._warned.add(message)
            logger.warning(message)

    def _opened(self) -> AsyncOpenAI:
        if self._client is None:
            endpoint, n = weakref.ref(self), self.settings.concurrency  # weak, or the client would never be closed

            async def check_budget(_: httpx2.Request) -> None:
                """Runs before each request, and each repetition of one, is sent."""
                if (asker := endpoint()) and (spent := asker._spent()):
                    raise _BudgetSpentError(spent)

            limits = httpx2.Limits(max_connections=n, max_keepalive_connections=n)
            http_client = DefaultAsyncHttpxClient(limits=limits, event_hooks={"request": [check_budget]})
            self._client = llm_client(self.settings, http_client)
            weakref.finalize(self, _close, self._client).atexit = False
        return self._client

    async def _ask(self, client: AsyncOpenAI, prompt: Prompt) -> Reply:
        if spent := self._spent():
            return Reply(failure=spent)
        try:
            return self._read(await self._complete(client, prompt), prompt)
        except _BudgetSpentError as error:
            return Reply(failure=str(error))
        except UnicodeEncodeError:
            return Reply(failure="the record cannot be sent: it is not valid Unicode")
        except (ValueError, RecursionError):  # a body that calls itself JSON and is none
            self.account.requests += 1
            self._uncounted = True
            return Reply(failure=_NO_COMPLETION)
        except APIStatusError as error:
            return Reply(failure=f"request failed: {type(error).__name__} {error.status_code}")
        except OpenAIError as error:
            return Reply(failure=f"request failed: {type(error).__name__}")

    async def _complete(self, client: AsyncOpenAI, prompt: Prompt) -> Any:
        body: dict[str, Any] = {"model": self.settings.model, "messages": prompt.messages, "temperature": 0}
        if prompt.schema:
            schema = {"name": "verdict", "strict": True, "schema": prompt.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if prompt.logprobs:
            body["logprobs"] = True
        dropped = self._refused & body.keys()
        while True:
            sent = {name: value for name, value in body.items() if name not in dropped}
            if "logprobs" in sent:
                sent["top_logprobs"] = _TOP_LOGPROBS
            try:
                # The plain JSON: building the package's own classes takes as long as sending.
                reply = await client.post(
                    "/chat/completions",
                    cast_to=object,
                    body=sent,
                    options={"headers": {"Idempotency-Key": str(uuid.uuid4())}},
                )
            except (BadRequestError, UnprocessableEntityError) as error:
                option = _refused_option(error, sent)
                if option is None:
                    raise
                dropped = dropped | {option}
            else:
                self._refused |= dropped  # it was the options, and not the record
                return reply

    def _read(self, completion: Any, prompt: Prompt) -> Reply:
        self._book(completion)
        try:
            choice = completion["choices"][0]
            text = choice["message"]["content"]
        except (KeyError, IndexError, TypeError):
            return Reply(failure=_NO_COMPLETION)
        reason = choice.get("finish_reason")
        return Reply(
            text=text if isinstance(text, str) else "",
            tokens=_tokens(choice.get("logprobs")) if prompt.logprobs else (),
            finish_reason=reason if isinstance(reason, str) else None,
        )

    def _book(self, completion: Any) -> None:
        usage = completion.get("usage") if isinstance(completion, dict) else None
        counts = [_count(usage, name) for name in ("prompt_tokens", "completion_tokens")]
        self.account.requests += 1
        if None in counts:
            self._uncounted = True
        prompt_tokens, completion_tokens = (count or 0 for count in counts)
        self.account.prompt_tokens += prompt_tokens
        self.account.completion_tokens += completion_tokens
        if self._prices and self.account.usd is not None:
            self.account.usd += (prompt_tokens * self._prices[0] + completion_tokens * self._prices[1]) / 1e6

    def _spent(self) -> str | None:
        usd, tokens = self.settings.budget_usd, self.settings.budget_tokens
        if (usd or tokens) and self._uncounted:
            return "not asked: the server does not say what it used, so no budget can be kept"
        if usd and (self.account.usd or 0.0) >= usd:
            return f"not asked: the budget of {usd:g} USD is spent"
        if tokens and self.account.prompt_tokens + self.account.completion_tokens >= tokens:
            return f"not asked: the budget of {tokens} tokens is spent"
        return None


_NO_COMPLETION = "the server's reply is no chat completion"


class _BudgetSpentError(OpenAIError):
    """An error of the package's own kind: such it passes on at once, where others are asked again."""


def llm_client(settings: EndpointSettings, http_client: httpx2.AsyncClient | None = None) -> AsyncOpenAI:
    """The client of an endpoint.

    Raises:
        UserError: no key is set, and no server of the user's own, which may need none; or the server's address is none.
    """
    base_url = _base_url(settings)
    key = os.environ.get(settings.api_key_variable) or ("none" if base_url else "")
    if not key:
        name = settings.api_key_variable
        raise UserError(
            f"an LLM is configured but {name} is not set; put it into .env (see .env.example), or set base_url or "
            "OPENAI_BASE_URL to a server of your own"
        )
    return AsyncOpenAI(
        api_key=key,
        base_url=base_url,
        timeout=settings.timeout_s,
        max_retries=settings.max_retries,
        http_client=http_client,
    )


def _base_url(settings: EndpointSettings) -> str | None:
    base_url = settings.base_url or os.environ.get("OPENAI_BASE_URL") or None
    if base_url and not re.match(r"https?://[^/]", base_url):
        raise UserError(f"base_url {base_url!r} is no address of a server; give it as http://host:port/v1")
    return base_url


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """One event loop for all endpoints, on a thread of its own: it works where the caller runs a loop already, and goes
    on while the caller is busy with the last answer."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="llm-endpoints", daemon=True).start()
    return loop


def _close(client: AsyncOpenAI) -> None:
    closing: Coroutine[Any, Any, None] = client.close()
    asyncio.run_coroutine_threadsafe(closing, _loop())


def _refused_option(error: APIStatusError, sent: Mapping[str, Any]) -> str | None:
    """The option to leave out after a refusal: one that it names, else the first that not every server knows."""
    said = str(error.body)
    words = {"response_format": ("response_format", "json_schema"), "logprobs": ("logprobs",)}
    for name in (*words, "temperature"):
        if name in sent and any(word in said for word in words.get(name, (name,))):
            return name
    return next((name for name in words if name in sent), None)


def _count(usage: Any, name: str) -> int | None:
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if type(count) is int and count >= 0 else None


def _tokens(logprobs: Any) -> list[Token]:
    """The tokens of ``choices[0].logprobs``; none where it is not of OpenAI's form."""

    def text(entry: Mapping[str, Any]) -> bytes:
        # A character can be spread over tokens, so that only their bytes join to the reply.
        return bytes(entry["bytes"]) if entry.get("bytes") else entry["token"].encode()

    try:
        return [
            Token(text(entry), {text(top): float(top["logprob"]) for top in (*entry["top_logprobs"], entry)})
            for entry in logprobs["content"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        return []
