"""Judges in Evidently reports of a user's own: a judge as a descriptor, and an endpoint of ours as an LLM provider."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ontopic.config.settings import EndpointSettings
from ontopic.endpoint.endpoint import Endpoint
from ontopic.endpoint.replies import Prompt
from ontopic.errors import UserError
from ontopic.judges.judge import Judge
from ontopic.records import Message, Record
from ontopic.reports.frames import VERDICT_COLUMNS, JudgeVerdict

# isort: split
from evidently import Dataset
from evidently._pydantic_compat import PrivateAttr
from evidently.core.datasets import DatasetColumn, Descriptor
from evidently.legacy.options.base import Options
from evidently.llm.models import LLMMessage
from evidently.llm.utils.errors import LLMRequestError
from evidently.llm.utils.wrapper import LLMResult, LLMWrapper, llm_provider

_MESSAGES = TypeAdapter(tuple[Message, ...])
PROVIDER = "ontopic"
"""The provider's name in Evidently."""


class JudgeDescriptor(Descriptor):
    """A judge as a live descriptor: it judges the columns ``question`` and ``answer`` of a data set.

    Where there is a column ``messages``, it holds all that was sent in OpenAI's shape, as a list or as JSON; a row
    without has its question alone. It adds the columns of ``JudgeVerdict``: verdict, score, in_scope and declined
    (``yes``, ``no`` or ``unknown``), explanation, cause, judge_id. A missing question or answer is judged as an empty
    one. For verdicts that are there already, use ``JudgeVerdict``.
    """

    _judge: Any = PrivateAttr(None)

    def __init__(self, judge: Judge, alias: str = "verdict") -> None:
        super().__init__(alias=alias)
        object.__setattr__(self, "_judge", judge)

    def generate_data(self, dataset: Dataset, options: Options) -> dict[str, DatasetColumn]:
        """The verdicts' columns.

        Raises:
            UserError: the data set lacks a column, already has one of the verdicts', or has messages that are none.
        """
        rows = dataset.as_dataframe()
        for name in ("question", "answer"):
            if name not in rows:
                raise UserError(f"the data set has no column {name!r} to judge; name one so")
        if taken := [name for name in VERDICT_COLUMNS if name in rows]:
            raise UserError(f"the data set has a column {taken[0]!r} already, which a verdict adds; rename it")
        texts = rows[["question", "answer"]].fillna("").astype(str)
        sent: Iterable[Any] = rows["messages"] if "messages" in rows else [None] * len(rows)
        records = [
            Record(question=row.question, answer=row.answer, messages=_messages(given, number))
            for number, (row, given) in enumerate(zip(texts.itertuples(index=False), sent, strict=True), start=1)
        ]
        columns = JudgeVerdict(self._judge.judge(records)).generate_data(dataset, options)
        for name in ("in_scope", "declined"):  # Evidently's own metrics break on an unknown truth value
            columns[name].data = columns[name].data.map({True: "yes", False: "no"}).fillna("unknown")
        return columns

    def list_output_columns(self) -> list[str]:
        """Names of the columns that `generate_data` gives."""
        return list(VERDICT_COLUMNS)


def _messages(given: Any, number: int) -> tuple[Message, ...]:
    """The messages in a cell of a row."""
    if given is None or given != given or given == "":  # a missing value is not equal to itself
        return ()
    try:
        if isinstance(given, str):
            return _MESSAGES.validate_json(given)
        return _MESSAGES.validate_python(list(given))
    except (ValidationError, TypeError):
        raise UserError(
            f"row {number} of the data set: 'messages' is no list of messages, each with a role and a text as content; "
            "mend it, or leave the column out"
        ) from None


def register_provider(settings: EndpointSettings) -> None:
    """Make an endpoint known to Evidently, as the provider ``ontopic`` of its model.

    After this, a descriptor such as ``LLMEval("answer", provider="ontopic", model=settings.model, ...)`` is asked of
    the endpoint, at temperature 0 and with its limits, retries and budget. A request that fails for good, or a reply
    that the descriptor cannot read, ends Evidently's report with an error; ``JudgeDescriptor`` has an ``unjudged`` row
    for it.

    Raises:
        UserError: no API key is set, or a budget in dollars has no price.
    """
    endpoint = Endpoint(settings)
    endpoint.check()

    @llm_provider(PROVIDER, settings.model)
    def wrapper(model: str, options: Options) -> LLMWrapper:
        return _EndpointWrapper(endpoint)


class _EndpointWrapper(LLMWrapper):
    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def get_batch_size(self) -> int:
        return self._endpoint.settings.concurrency

    async def complete(self, messages: Sequence[LLMMessage], seed: int | None = None) -> LLMResult[str]:
        chat = [{"role": message.role, "content": message.content} for message in messages]
        reply = await self._endpoint.ask(Prompt(chat, key=b""))
        if reply.failure:
            raise LLMRequestError(reply.failure)
        return LLMResult(reply.text, 0, 0)  # the tokens are on the endpoint's account
