"""The engine behind every LLM judge and teacher: many prompts, asked of an OpenAI-compatible server at once."""

from __future__ import annotations

import asyncio
import logging
import uuid
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import httpx2
from openai import (
    APIStatusError,
    AsyncOpenAI,
    BadRequestError,
    OpenAIError,
    UnprocessableEntityError,
)

from ontopic.config.settings import EndpointSettings
from ontopic.endpoint.account import Account
from ontopic.endpoint.client import base_url_of, llm_client
from ontopic.endpoint.event_loop import event_loop
from ontopic.endpoint.replies import NO_COMPLETION, Prompt, Reply, read_reply, read_usage
from ontopic.endpoint.stream import PromptStream
from ontopic.errors import UserError

logger = logging.getLogger(__name__)

_TOP_LOGPROBS = 20  # the most that OpenAI and vLLM give

Answer = TypeVar("Answer")
Result = TypeVar("Result")


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
        UserError: a budget in dollars without a price; an address that is not one.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        prices = (settings.usd_per_million_prompt_tokens, settings.usd_per_million_completion_tokens)
        self._prices = None if prices[0] is None or prices[1] is None else (prices[0], prices[1])
        if settings.budget_usd is not None and self._prices is None:
            raise UserError(
                "budget_usd needs the price: set usd_per_million_prompt_tokens and usd_per_million_completion_tokens"
            )
        self.settings = settings
        self.base_url = base_url_of(settings)
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
        self._opened()
        concurrency = self.settings.concurrency
        stream = PromptStream(self._ask_in_turn, read, concurrency=concurrency, account=self.account)
        return stream.answers(asked)

    async def ask(self, prompt: Prompt) -> Reply:
        """What comes of one prompt: for frameworks that ask one at a time. May be awaited in any event loop.

        Raises:
            UserError: no API key is set.
        """
        self._opened()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._ask_in_turn(prompt), event_loop()))

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run what awaits ``ask``, also where the caller runs an event loop already, as in a notebook."""
        running = asyncio.run_coroutine_threadsafe(work, event_loop())
        try:
            return running.result()
        except BaseException:  # also Ctrl-C: nothing goes on in the background
            running.cancel()
            raise

    def check(self) -> None:
        """Fail now, and not at the first prompt, where the key is missing or the environment's proxy cannot be used.

        Raises:
            UserError: no API key is set, or ``ontopic.config.network`` refuses the environment.
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
            self._client = llm_client(self.settings, limits=limits, event_hooks={"request": [check_budget]})
            weakref.finalize(self, _close, self._client).atexit = False
        return self._client

    async def _ask_in_turn(self, prompt: Prompt) -> Reply:
        async with self._slots:
            return await self._ask(prompt)

    async def _ask(self, prompt: Prompt) -> Reply:
        if spent := self._spent():
            return Reply(failure=spent)
        try:
            completion = await self._complete(self._opened(), prompt)
            self._book(completion)
            return read_reply(completion, with_tokens=prompt.logprobs)
        except _BudgetSpentError as error:
            return Reply(failure=str(error))
        except UnicodeEncodeError:
            return Reply(failure="the record cannot be sent: it is not valid Unicode")
        except (ValueError, RecursionError):  # a body that calls itself JSON and is not
            self.account.requests += 1
            self._uncounted = True
            return Reply(failure=NO_COMPLETION)
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

    def _book(self, completion: Any) -> None:
        counts = read_usage(completion)
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


class _BudgetSpentError(OpenAIError):
    """An error of the package's own kind: such it passes on at once, where others are asked again."""


def _close(client: AsyncOpenAI) -> None:
    closing: Coroutine[Any, Any, None] = client.close()
    asyncio.run_coroutine_threadsafe(closing, event_loop())


def _refused_option(error: APIStatusError, sent: Mapping[str, Any]) -> str | None:
    """The option to leave out after a refusal: one that it names, else the first that not every server knows."""
    said = str(error.body)
    words = {"response_format": ("response_format", "json_schema"), "logprobs": ("logprobs",)}
    for name in (*words, "temperature"):
        if name in sent and any(word in said for word in words.get(name, (name,))):
            return name
    return next((name for name in words if name in sent), None)
