"""A chat request under way: its answers are queued, waited for and stored."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

import anyio.to_thread

from ontopic.models.answer import Batch, Generated, Generation, OverloadedError, Piece, TokenLogprob, parameters_of
from ontopic.records import GuardDecision, Message, Record
from ontopic.traffic.identity import user_hash
from serving import metrics
from serving.access import Caller
from serving.assistant import ServedAssistant
from serving.chat_guard import ChatGuard, Checked, said
from serving.chat_request import ChatRequest
from serving.deployment import Deployment
from serving.errors import RequestError
from serving.following import answering
from serving.rolling import Rolling
from serving.tracing import Trace

logger = logging.getLogger("bentoml.ontopic")

_Put = Callable[[int, Piece | None], None]

TIMEOUT_S = 300


@dataclass
class Chat:
    """A request under way: an answer and a record a choice.

    Attributes:
        key: the name of the API key that it came with.
        ids: of the records.
        pieces: of a stream: the choice and what comes next of it, ``None`` at its end, or what the guard says of it.
        guard: what looks at question and answers.
        conversation: which the request is part of.
        rolling: the rollout that went on when it began; ``None`` where none did.
        decisions: the guard's, an answer each; ``None`` where none looks, or has not yet.
        start: by ``time.perf_counter``, in seconds.
        begun: of a stream: whether the first that came of it is a piece, and not an end.
    """

    request: ChatRequest
    assistant: ServedAssistant
    deployment: Deployment
    key: str
    generations: list[Generation]
    pieces: asyncio.Queue[tuple[int, Piece | Checked | None]]
    asked_at: datetime
    start: float
    begun: asyncio.Future[bool]
    guard: ChatGuard
    conversation: str
    rolling: Rolling | None = None
    ids: list[str] = field(init=False)
    decisions: list[GuardDecision | None] = field(init=False)

    async def first_piece(self) -> None:
        """Wait until a stream has begun, so that a refusal by the server behind it is the response's status.

        Raises:
            RequestError: an answer failed before any began.
        """
        if not await self.begun:
            await asyncio.gather(*(asyncio.wrap_future(each.done) for each in self.generations if each.done.done()))

    def __post_init__(self) -> None:
        self.ids = [uuid.uuid4().hex for _ in self.generations]
        self.decisions = [self.guard.of_question for _ in self.generations]

    async def users_answers(self) -> list[Generated]:
        """The whole answers that users get: the refusal in place of those that the guard stops.

        Raises:
            RequestError: the model failed.
        """
        answers = await self.answers()
        return list(await asyncio.gather(*(self._guarded(i, answer) for i, answer in enumerate(answers))))

    async def _guarded(self, i: int, answer: Generated) -> Generated:
        decision = self.decisions[i] = await self.guard.after(answer.text)
        if decision is None or not self.guard.refuses(decision) or self.guard.refuses(self.guard.of_question):
            return answer
        self.decisions[i] = decision.model_copy(update={"withheld": answer.text})
        # The tokens are those that the model took for what nobody sees.
        return replace(answer, text=self.guard.refusal, finish_reason="content_filter", logprobs=())

    async def answers(self, of: Sequence[bool] | None = None) -> list[Generated]:
        """The whole answers of the model.

        Args:
            of: which choices' are waited for; all by default.

        Raises:
            RequestError: the model failed.
        """
        wanted = [each for i, each in enumerate(self.generations) if of is None or of[i]]
        try:
            return await asyncio.gather(*(asyncio.wrap_future(each.done) for each in wanted))
        except RequestError:  # the server that was asked has said why
            raise
        except Exception as error:
            logger.exception("generation failed")
            raise RequestError("the model failed; see the server's log", status=500) from error

    def give_up(self) -> None:
        """Free the places of answers that nobody waits for any more."""
        for each in self.generations:
            each.done.cancel()

    async def store(self, answers: Sequence[Generated], *, whole: bool = True) -> None:
        """Count the answers, store a record of each, and have a challenger answer unseen where one does.

        Args:
            whole: whether users got them to their end.

        Raises:
            RequestError: they could not be stored.
        """
        latency_s = time.perf_counter() - self.start
        metrics.latency(latency_s)
        self.guard.trace.answered(self.deployment.version, self.ids, answers=answers)
        metrics.tokens(answers[0].prompt_tokens, sum(answer.completion_tokens for answer in answers))
        try:
            await anyio.to_thread.run_sync(self._keep, answers, latency_s)
        except Exception as error:
            logger.exception("the record could not be stored")
            message = "the record of this answer could not be stored"
            raise RequestError(message, None, status=503, code="record_not_stored", retry_after_s=1) from error
        shadow = self.rolling.shadow if self.rolling else None
        if shadow is not None and whole and not self.guard.refuses(self.guard.of_question):
            shadow.offer(self.request.messages, [each.sampling for each in self.generations], ids=self.ids)

    def _keep(self, answers: Sequence[Generated], latency_s: float) -> None:
        asked = self.request
        messages = tuple(Message.model_validate(message) for message in asked.messages)
        user = user_hash(asked.user, self.assistant.user_key)
        for i, (record_id, answer, generation) in enumerate(zip(self.ids, answers, self.generations, strict=True)):
            record = Record(
                question=asked.question,
                answer=answer.text,
                id=record_id,
                registered_model=self.assistant.model_name,
                model_version=self.deployment.version,
                asked_at=self.asked_at,
                latency_s=latency_s,
                prompt_tokens=answer.prompt_tokens,
                completion_tokens=answer.completion_tokens,
                finished=answer.finished,
                messages=messages if len(messages) > 1 else (),
                parameters=parameters_of(generation.sampling),
                conversation=self.conversation,
                user=user,
                metadata=asked.metadata | dict(answer.metadata),
                key=self.key,
                guard=self.decisions[i],
                rollout=self.rolling.rollout.name if self.rolling else "",
            )
            self.assistant.keep(record)

    def headers(self) -> dict[str, str]:
        """What names the records, the model version, what an enforced guard decided and, where more was asked for, the
        most tokens of an answer."""
        names = {"x-ontopic-record-id": ",".join(self.ids), "x-ontopic-model-version": self.deployment.version}
        if self.guard.cuts:
            names["x-ontopic-guard"] = ",".join(said(each) for each in self.decisions if each is not None)
        return names | ({"x-ontopic-max-tokens": str(self.request.sampling.limit)} if self.request.cut else {})

    def envelope(self, kind: str) -> dict[str, Any]:
        """What an answer and each chunk of a stream begin with."""
        return {
            "id": f"chatcmpl-{self.ids[0]}",
            "object": kind,
            "created": int(self.asked_at.timestamp()),
            "model": self.assistant.model_name,
        }


def _check_alternatives(asked: ChatRequest, batch: Batch) -> None:
    if asked.sampling.top_logprobs and not batch.alternatives:
        raise RequestError(
            "this service's engine gives the log-probability of an answer's own tokens and no others'; "
            "leave top_logprobs out, or set it to 0",
            "top_logprobs",
            code="unsupported_value",
        )


async def begin_chat(
    asked: ChatRequest, assistant: ServedAssistant, *, caller: Caller, asked_at: datetime, start: float, trace: Trace
) -> Chat:
    """Queue the answers of a request.

    Raises:
        RequestError: the prompt is refused, the caller's tokens are used up, too many wait, or the service is stopping.
    """
    pieces, begun, put = _stream()
    messages = tuple(Message.model_validate(message) for message in asked.messages)
    user_key = assistant.user_key
    conversation = await anyio.to_thread.run_sync(partial(asked.conversation, caller.name, user_key=user_key))
    tokens_taken = False
    while True:
        deployment, rolling = answering(assistant, conversation)
        _check_alternatives(asked, deployment.batch)
        ids = await anyio.to_thread.run_sync(deployment.prompts.ids, asked.messages, asked.sampling.limit)
        if not tokens_taken:
            await caller.allowance.take_tokens(len(ids) + asked.n * asked.sampling.limit)
            tokens_taken = True
        guard = ChatGuard(deployment.guard, messages, trace)
        await guard.before()
        generations = _generations(asked, ids, put=put)
        if guard.refuses(guard.of_question):
            _refuse(generations, guard.refusal)
            break
        try:
            trace.generating(generations, deployment.batch)
            deployment.batch.submit(generations)
            break
        except OverloadedError as error:
            raise RequestError(
                str(error), None, status=429, code="overloaded", retry_after_s=error.retry_after_s
            ) from error
        except RuntimeError as error:
            if answering(assistant, conversation)[0] is deployment:
                raise RequestError(
                    "the service is stopping; ask again", None, status=503, code="stopping", retry_after_s=1
                ) from error
            # Another version took its place meanwhile, or a rollout is over: that one answers.
    return Chat(
        asked,
        assistant,
        deployment,
        caller.name,
        generations,
        pieces,
        asked_at,
        start,
        begun,
        guard,
        conversation,
        rolling,
    )


def _stream() -> tuple[asyncio.Queue[tuple[int, Piece | Checked | None]], asyncio.Future[bool], _Put]:
    """Where the pieces of an answer are put, whether it has begun, and what puts them there from any thread."""
    loop, pieces = asyncio.get_running_loop(), asyncio.Queue[tuple[int, Piece | Checked | None]]()
    begun: asyncio.Future[bool] = loop.create_future()

    def put_here(choice: int, piece: Piece | None) -> None:
        pieces.put_nowait((choice, piece))
        if not begun.done():
            begun.set_result(piece is not None)

    def put(choice: int, piece: Piece | None) -> None:
        loop.call_soon_threadsafe(put_here, choice, piece)

    return pieces, begun, put


def _refuse(generations: Sequence[Generation], refusal: str) -> None:
    """Answer with the refusal, of which the model generates nothing."""
    for each in generations:
        if each.on_piece:
            each.on_piece(Piece(refusal, 0))
        each.done.set_result(Generated(refusal, len(each.ids), 0, "content_filter"))


def _generations(asked: ChatRequest, ids: list[int], *, put: _Put) -> list[Generation]:
    """A generation a choice, of one prompt; those of a stream put their pieces and, at the end, ``None``."""

    def put_end(choice: int, _: Future[Generated]) -> None:
        put(choice, None)

    generations = []
    for i in range(asked.n):
        sampling = asked.sampling
        if sampling.seed is not None:
            sampling = replace(sampling, seed=sampling.seed + i)
        generation = Generation(ids, sampling, partial(put, i) if asked.stream else None, sent=asked.sent)
        if asked.stream:
            generation.done.add_done_callback(partial(put_end, i))
        generations.append(generation)
    return generations


def usage(answers: Sequence[Generated]) -> dict[str, int]:
    """The tokens of a request's prompt and answers, as OpenAI's API gives them."""
    prompt, completion = answers[0].prompt_tokens, sum(answer.completion_tokens for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def logprobs_of(logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    """The log-probabilities of tokens, as OpenAI's API gives them."""

    def entry(token: bytes, logprob: float) -> dict[str, Any]:
        # Half a character is written as OpenAI does: \\xf0\\x9f.
        return {"token": token.decode(errors="backslashreplace"), "logprob": logprob, "bytes": list(token)}

    content = [
        entry(each.token, each.logprob) | {"top_logprobs": [entry(*other) for other in each.top]} for each in logprobs
    ]
    return {"content": content, "refusal": None}
