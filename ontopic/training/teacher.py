"""A teacher: an LLM that writes the chosen answers to in-scope questions."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from ontopic.config.policy import Policy
from ontopic.config.settings import TeacherSettings
from ontopic.data.same_question import identity
from ontopic.endpoint.endpoint import Endpoint
from ontopic.endpoint.replies import Prompt, Reply
from ontopic.progress import progress
from ontopic.records import Record, Verdict, transcript

logger = logging.getLogger(__name__)

_INSTRUCTION = """You write model answers for an assistant that speaks of {subject} only. {definition}

Answer the user's newest question in its own language, in one to three short, plain, correct sentences. Never invent
facts about the user's own accounts: say where they can see them. Give the answer alone."""
_GIVEN = """

What the assistant was given for this conversation stands below, each line behind a bar. Take facts from it, but keep to
what is said above.
{given}"""


def answers(
    records: Sequence[Record], verdicts: Sequence[Verdict], *, policy: Policy, settings: TeacherSettings
) -> dict[str, str]:
    """The teacher's answer by question in its conversation (``identity``), for the records that the judge holds to be
    in scope. It is shown the whole conversation; what system and tools said stands in its instruction.

    A question that the teacher does not answer whole, or that its budget does not cover, is left out; how many, and
    why, is logged.

    Raises:
        UserError: no API key is set, the server refuses for a reason that no repetition mends, or a budget in dollars
            has no price.
    """
    inside = [record.request for record, verdict in zip(records, verdicts, strict=True) if verdict.in_scope]
    questions = {identity(request): request for request in inside}
    instruction = _INSTRUCTION.format(subject=policy.subject, definition=policy.definition)
    prompts = (
        Prompt(_messages(instruction, request), str(number).encode())
        for number, request in enumerate(questions.values())
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


def _messages(instruction: str, request: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """A conversation as the teacher is to go on with it: servers take one system message, and no tool's without its
    call."""
    given = [message for message in request if message["role"] in ("system", "tool")]
    system = instruction + (_GIVEN.format(given=transcript(given)) if given else "")
    spoken = [dict(message) for message in request if message["role"] in ("user", "assistant")]
    return [{"role": "system", "content": system}, *spoken]


def _reply(_: Prompt, reply: Reply) -> Reply:
    return reply
