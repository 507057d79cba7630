"""A teacher: an LLM that writes the chosen answers to in-scope questions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from openai import AsyncOpenAI, OpenAIError

from ontopic.judges.llm import llm_client, reply_text
from ontopic.policy import Policy
from ontopic.progress import Advance, progress
from ontopic.records import Record, Verdict
from ontopic.settings import TeacherSettings

logger = logging.getLogger(__name__)

_INSTRUCTION = """You write model answers for an assistant that speaks of {subject} only. {definition}

Answer the user's question in one to three short, plain, correct sentences. Never invent facts about the user's own
accounts: say where they can see them. Give the answer alone."""


def answers(
    records: Sequence[Record],
    verdicts: Sequence[Verdict],
    policy: Policy,
    settings: TeacherSettings,
    client: AsyncOpenAI | None = None,
) -> dict[str, str]:
    """The teacher's answer by question, for the records that the judge holds to be in scope.

    A question that the teacher does not answer is left out; how many is logged.

    Raises:
        UserError: no API key is set.
    """
    questions = list(dict.fromkeys(r.question for r, v in zip(records, verdicts, strict=True) if v.in_scope))
    with progress("teacher's answers", len(questions), "questions") as advance:
        written = asyncio.run(_ask(questions, policy, settings, client, advance))
    found = {question: text for question, text in zip(questions, written, strict=True) if text}
    if len(found) < len(questions):
        logger.warning(
            "the teacher left %d of %d questions without an answer", len(questions) - len(found), len(questions)
        )
    return found


async def _ask(
    questions: Sequence[str], policy: Policy, settings: TeacherSettings, client: AsyncOpenAI | None, advance: Advance
) -> list[str]:
    system = _INSTRUCTION.format(subject=policy.subject, definition=policy.definition)
    slots = asyncio.Semaphore(settings.concurrency)
    async with client or llm_client(settings.timeout_s) as teacher:

        async def one(question: str) -> str:
            async with slots:
                try:
                    reply = await teacher.chat.completions.create(
                        model=settings.model,
                        messages=[{"role": "system", "content": system}, {"role": "user", "content": question}],
                        temperature=0,
                    )
                except (OpenAIError, ValueError):  # ValueError: a body that is no JSON
                    return ""
                finally:
                    advance(1)
            return reply_text(reply).strip()

        return list(await asyncio.gather(*(one(question) for question in questions)))
