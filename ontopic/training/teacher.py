"""A teacher: an LLM that writes the chosen answers to in-scope questions."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from ontopic.config.policy import Policy
from ontopic.config.settings import TeacherSettings
from ontopic.endpoint.endpoint import Endpoint
from ontopic.endpoint.replies import Prompt, Reply
from ontopic.progress import progress
from ontopic.records import Record, Verdict

logger = logging.getLogger(__name__)

_INSTRUCTION = """You write model answers for an assistant that speaks of {subject} only. {definition}

Answer the user's question in its own language, in one to three short, plain, correct sentences. Never invent facts
about the user's own accounts: say where they can see them. Give the answer alone."""


def answers(
    records: Sequence[Record], verdicts: Sequence[Verdict], *, policy: Policy, settings: TeacherSettings
) -> dict[str, str]:
    """The teacher's answer by question, for the records that the judge holds to be in scope.

    A question that the teacher does not answer whole, or that its budget does not cover, is left out; how many, and
    why, is logged.

    Raises:
        UserError: no API key is set, the server refuses for a reason that no repetition mends, or a budget in dollars
            has no price.
    """
    questions = list(dict.fromkeys(r.question for r, v in zip(records, verdicts, strict=True) if v.in_scope))
    system = {"role": "system", "content": _INSTRUCTION.format(subject=policy.subject, definition=policy.definition)}
    prompts = (
        Prompt([system, {"role": "user", "content": question}], str(number).encode())
        for number, question in enumerate(questions)
    )
    found, causes = {}, Counter[str]()
    with progress("teacher's answers", len(questions), unit="questions") as advance:
        replies = Endpoint(settings).ask_all(prompts, _reply)
        for question, reply in zip(questions, replies, strict=True):
            if text := reply.text.strip():
                found[question] = text
            else:
                causes[reply.failure or "the answer is empty"] += 1
            advance(1)
    if causes:
        logger.warning(
            "the teacher left %d of %d questions without an answer (%s)",
            len(questions) - len(found),
            len(questions),
            "; ".join(f"{n} {cause}" for cause, n in causes.most_common(5)),
        )
    return found


def _reply(_: Prompt, reply: Reply) -> Reply:
    return reply
