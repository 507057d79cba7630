"""A judge behind an OpenAI-compatible endpoint: OpenAI, vLLM, Ollama, llama.cpp."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from openai import APIStatusError, AsyncOpenAI, BadRequestError, OpenAIError, UnprocessableEntityError
from pydantic import BaseModel, ConfigDict

from ontopic.errors import UserError
from ontopic.judges.judge import Account, outcome
from ontopic.policy import Policy
from ontopic.progress import Advance
from ontopic.records import Record, Verdict
from ontopic.settings import LLMJudgeSettings

_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_REQUIRED = {"fence", "question", "answer"}
_KNOWN = _REQUIRED | {"subject", "definition", "inside", "outside", "passes", "fails", "examples"}


class _Grade(BaseModel):
    """The JSON object that a judge is asked for; the naive template asks for the verdict alone."""

    model_config = ConfigDict(extra="ignore", strict=True)
    explanation: str = ""
    in_scope: bool | None = None
    declined: bool | None = None
    verdict: Literal["pass", "fail"]


_SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "verdict",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "explanation": {"type": "string"},
                "in_scope": {"type": "boolean"},
                "declined": {"type": "boolean"},
                "verdict": {"type": "string", "enum": ["pass", "fail"]},
            },
            "required": ["explanation", "in_scope", "declined", "verdict"],
            "additionalProperties": False,
        },
    },
}


def load_template(path: Path) -> str:
    """Read a judge prompt.

    Raises:
        UserError: the file is missing, names an unknown placeholder, or lacks one of fence, question and answer.
    """
    try:
        template = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the judge prompt cannot be read ({error})") from error
    named = set(_PLACEHOLDER.findall(template))
    if unknown := sorted(named - _KNOWN):
        raise UserError(f"{path}: unknown placeholder {unknown[0]!r}; the valid ones are {', '.join(sorted(_KNOWN))}")
    if lacking := sorted(_REQUIRED - named):
        raise UserError(f"{path}: the placeholder {{{{{lacking[0]}}}}} is missing; add it")
    return template


def render(template: str, values: Mapping[str, str]) -> str:
    """Fill the placeholders in one pass, so that a placeholder inside a value stays plain text."""
    return _PLACEHOLDER.sub(lambda match: values[match.group(1)], template)


class LLMJudge:
    """Asks an LLM for a verdict on each record, several at once.

    A record whose request fails for good, or whose reply cannot be parsed, is ``unjudged`` with that cause; it never
    fails for it. Where the server refuses a JSON schema it is asked without one.

    Args:
        settings: model, template name, concurrency and time-out.
        template: the prompt, with ``{{placeholders}}``.
        policy: fills the placeholders.
        client: to ask with; closed after one call of ``judge``; by default one from ``OPENAI_API_KEY`` and
            ``OPENAI_BASE_URL`` for each call.

    Raises:
        UserError: no API key is set.
    """

    def __init__(
        self, settings: LLMJudgeSettings, template: str, policy: Policy, client: AsyncOpenAI | None = None
    ) -> None:
        self.settings, self.template = settings, template
        self._client = client
        self.account = Account()
        self._schema_refused = False
        self._policy_values = _policy_values(policy)
        content = json.dumps([settings.model, template, self._policy_values, _SCHEMA], sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()[:12]
        self.id = f"openai-{settings.model}-{settings.template}-{digest}"

    def judge(self, records: Sequence[Record], advance: Advance | None = None) -> list[Verdict]:
        """See ``Judge.judge``."""
        return asyncio.run(self._judge_all(records, advance))

    async def _judge_all(self, records: Sequence[Record], advance: Advance | None) -> list[Verdict]:
        slots = asyncio.Semaphore(self.settings.concurrency)
        async with self._client or llm_client(self.settings.timeout_s) as client:

            async def one(record: Record) -> Verdict:
                async with slots:
                    verdict = await self._judge_one(client, record)
                if advance:
                    advance(1)
                return verdict

            return list(await asyncio.gather(*(one(record) for record in records)))

    async def _judge_one(self, client: AsyncOpenAI, record: Record) -> Verdict:
        # A fence that the record's author could not know cannot be closed by the record.
        untrusted = {"fence": secrets.token_hex(8), "question": record.question, "answer": record.answer}
        prompt = render(self.template, self._policy_values | untrusted)
        try:
            reply = await self._ask(client, prompt)
        except (OpenAIError, ValueError) as error:  # ValueError: the client takes a body that is no JSON as it comes
            status = f" {error.status_code}" if isinstance(error, APIStatusError) else ""
            return self._unjudged(f"request failed: {type(error).__name__}{status}")
        grade = _parse(reply)
        if grade is None:
            return self._unjudged("the judge's reply holds no verdict")
        in_scope, passed = grade.in_scope, grade.verdict == "pass"
        if record.in_scope is not None:
            if grade.declined is not None and in_scope is not None and in_scope != record.in_scope:
                passed = outcome(record.in_scope, grade.declined, on_subject=True)
            in_scope = record.in_scope
        declined = grade.declined
        if declined is None and in_scope is not None:
            declined = in_scope != passed
        return Verdict(
            "pass" if passed else "fail",
            float(passed),
            grade.explanation,
            self.id,
            in_scope=in_scope,
            declined=declined,
        )

    async def _ask(self, client: AsyncOpenAI, prompt: str) -> str:
        options: dict[str, Any] = {} if self._schema_refused else {"response_format": _SCHEMA}
        messages: Any = [{"role": "user", "content": prompt}]
        try:
            reply = await client.chat.completions.create(
                model=self.settings.model, messages=messages, temperature=0, **options
            )
        except (BadRequestError, UnprocessableEntityError):
            if not options:
                raise
            reply = await client.chat.completions.create(model=self.settings.model, messages=messages, temperature=0)
            self._schema_refused = True  # and not the record
        return reply_text(reply)

    def _unjudged(self, cause: str) -> Verdict:
        return Verdict("unjudged", None, "", self.id, cause=cause)


def reply_text(reply: Any) -> str:
    """What a chat completion says; nothing where it is none, as the page of a proxy that asks to log in."""
    try:
        text = reply.choices[0].message.content
    except (AttributeError, IndexError, TypeError):
        return ""
    return text if isinstance(text, str) else ""


def llm_client(timeout_s: float) -> AsyncOpenAI:
    """The client of every LLM judge and teacher, with the ``openai`` package's own retries.

    Raises:
        UserError: ``OPENAI_API_KEY`` is not set.
    """
    try:
        return AsyncOpenAI(timeout=timeout_s, max_retries=4)
    except OpenAIError as error:
        raise UserError(
            "an LLM is configured but OPENAI_API_KEY is not set; put it into .env (see .env.example), "
            "with OPENAI_BASE_URL for a server of your own"
        ) from error


def _policy_values(policy: Policy) -> dict[str, str]:
    def listed(items: Sequence[str]) -> str:
        return "\n".join(f"- {item}" for item in items)

    examples = [
        json.dumps({"question": e.question, "answer": e.answer, "verdict": e.verdict, "explanation": e.why})
        for e in policy.examples
    ]
    return {
        "subject": policy.subject,
        "definition": policy.definition,
        "inside": listed(policy.border.in_scope),
        "outside": listed(policy.border.out_of_scope),
        "passes": listed(policy.rubric.passes),
        "fails": listed(policy.rubric.fails),
        "examples": "\n".join(examples),
    }


def _parse(reply: str) -> _Grade | None:
    """The one JSON object in a reply that is a grade; ``None`` where there is none, or several that disagree."""
    grades = []
    decoder, start = json.JSONDecoder(), reply.find("{")
    while start != -1:
        try:
            candidate, length = decoder.raw_decode(reply[start:])
            grades.append(_Grade.model_validate(candidate))
            start = reply.find("{", start + length)
        except (ValueError, RecursionError):  # no JSON, no grade, or a number of 5,000 digits
            start = reply.find("{", start + 1)
    return grades[0] if grades and len({grade.verdict for grade in grades}) == 1 else None
