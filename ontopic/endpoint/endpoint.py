"""The engine behind every LLM judge and teacher: many prompts, asked of an OpenAI-compatible server at once."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import httpx2
from openai import APIStatusError, AsyncOpenAI, OpenAIError

from ontopic.config.settings import EndpointSettings
from ontopic.endpoint.account import Account
from ontopic.endpoint.client import base_url_of, key_in, llm_client, shown_url
from ontopic.endpoint.event_loop import event_loop
from ontopic.endpoint.http_client import UnreadableReplyError
from ontopic.endpoint.refusals import RefusedError, error_told, failure_of, redacted, refusal
from ontopic.endpoint.replies import Prompt, Reply, read_completion, read_reply, read_usage
from ontopic.endpoint.server_error import ServerError
from ontopic.endpoint.stream import PromptStream
from ontopic.errors import UserError

logger = logging.getLogger(__name__)

_TOP_LOGPROBS = 20  # the most that OpenAI and vLLM give
_REFUSALS_IN_A_ROW = 16
_SILENT_S = 60.0  # after a refusal that no repetition mends; then a process that goes on, as ``watch``, tries again

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
    one that names ``temperature`` in its refusal. A record that is too long or that a filter stops is not asked again.

    Where the server refuses what no repetition mends (key, quota, model), every call ends with ``RefusedError``, and
    nothing is sent for a minute.

    A budget stops before the request that would follow its end; those under way then are still paid for.

    Attributes:
        base_url: the server; ``None`` for OpenAI's own.
        account: what was used so far.

    Raises:
        UserError: a budget in dollars without a price; an address that is not one; a key that no header can hold.
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
        for variable in (settings.api_key_variable, "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
            key_in(variable)  # before any work
        self.account = Account(usd=None if self._prices is None else 0.0)
        self._client: AsyncOpenAI | None = None
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._refused: set[str] = set()
        self._uncounted = self._answered = False
        self._refusal, self._refused_until, self._refused_in_a_row = "", 0.0, 0
        self._warned: set[str] = set()

    def ask_all(self, asked: Iterable[Prompt | Answer], read: Callable[[Prompt, Reply], Answer]) -> Iterator[Answer]:
        """Ask many prompts at once; yields in order, and takes from ``asked`` only a little ahead of that.

        Args:
            asked: prompts, and among them answers that are known already, which are passed on in their place. A prompt
                whose key is under way already waits for that one's answer.
            read: makes an answer of a reply, on another thread and as soon as the reply is there.

        Raises:
            UserError: no API key is set, or the server refuses for a reason that no repetition mends.
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
            UserError: no API key is set, or the server refuses for a reason that no repetition mends.
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
        if self._refusal and time.monotonic() < self._refused_until:
            raise RefusedError(self._refusal)
        reply = await self._reply(prompt)
        if not reply.failure:
            return reply
        key = os.environ.get(self.settings.api_key_variable, "")
        return replace(reply, failure=redacted(reply.failure, prompt.messages, key=key))

    async def _reply(self, prompt: Prompt) -> Reply:
        try:
            body = await self._complete(self._opened(), prompt)
        except _BudgetSpentError as error:
            return Reply(failure=str(error))
        except UnicodeEncodeError as error:
            if all(_is_unicode(message["content"]) for message in prompt.messages):
                raise UserError(
                    "a header of the requests has a character that no header can hold; see to OPENAI_CUSTOM_HEADERS"
                ) from error
            return Reply(failure="the record cannot be sent: it is not valid Unicode")
        except UnreadableReplyError as error:
            return self._no_completion(str(error), paid_for=True)
        except APIStatusError as error:
            self._stop_where_refused(error_told(error), prompt)
            return Reply(failure=failure_of(error, address=self._address))
        except OpenAIError as error:
            return Reply(failure=failure_of(error, address=self._address))
        try:
            completion = read_completion(body)
        except ValueError as error:
            return self._no_completion(str(error), paid_for=body.lstrip()[:1] not in (b"", b"<"))
        self._book(completion)
        reply = read_reply(completion, with_tokens=prompt.logprobs)
        if not reply.failure:
            self._answered, self._refused_in_a_row = True, 0
        return reply

    def _no_completion(self, failure: str, *, paid_for: bool) -> Reply:
        self.account.requests += 1
        self._uncounted |= paid_for
        return Reply(failure=failure)

    def _stop_where_refused(self, told: ServerError, prompt: Prompt) -> None:
        """Raise where no other request can succeed either, and let none be sent for a while.

        What a record says can make a server, or what stands before it, refuse that record as if all were refused. So
        after an answer, and where a mere page forbids it, only several in a row count.
        """
        if not told.final:
            return
        self._refused_in_a_row += 1
        doubtful = not told.is_certain and (self._answered or (told.is_page and told.status == 403))
        if doubtful and self._refused_in_a_row < _REFUSALS_IN_A_ROW:
            return
        key = os.environ.get(self.settings.api_key_variable, "")
        sentence = str(refusal(told, self.settings, address=self._address))
        self._refusal = redacted(sentence, prompt.messages, key=key)
        self._refused_until = time.monotonic() + _SILENT_S
        raise RefusedError(self._refusal)

    @property
    def _address(self) -> str:
        return shown_url(self._opened().base_url).rstrip("/")

    async def _complete(self, client: AsyncOpenAI, prompt: Prompt) -> bytes:
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
                    cast_to=httpx2.Response,
                    body=sent,
                    options={"headers": {"Idempotency-Key": str(uuid.uuid4())}},
                )
            except APIStatusError as error:
                option = error_told(error).refused_option(sent)
                if option is None:
                    raise
                dropped = dropped | {option}
            else:
                self._refused |= dropped  # it was the options, and not the record
                return reply.content

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


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _close(client: AsyncOpenAI) -> None:
    closing: Coroutine[Any, Any, None] = client.close()
    asyncio.run_coroutine_threadsafe(closing, event_loop())
