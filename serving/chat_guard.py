"""One request and its guard: what it decides of the question, and of each answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from ontopic.data.language import refusal_to
from ontopic.judges.guard.guard import Asked, Opinion
from ontopic.records import GuardDecision, Message
from serving.guard import DOWN, TOO_SLOW, ServedGuard
from serving.tracing import Trace


@dataclass(frozen=True)
class Checked:
    """What the guard decided of an answer's first so many characters.

    Attributes:
        whole: whether that is all of it.
    """

    length: int
    whole: bool
    decision: GuardDecision | None


@dataclass
class ChatGuard:
    """The guard of one request.

    Attributes:
        served: ``None`` where none looks at it; then nothing is decided.
        trace: of the request.
        of_question: what was decided before generation.
    """

    served: ServedGuard | None
    messages: tuple[Message, ...]
    trace: Trace
    of_question: GuardDecision | None = field(default=None, init=False)

    async def before(self) -> None:
        """Decide on the question."""
        if self.served is not None:
            with self.trace.guard("question") as decided:
                opinion = await self.served.opinion(Asked(messages=self.messages))
                self.of_question = self._decision(opinion, "question")
                decided.append(self.of_question)

    async def after(self, answer: str, *, whole: bool = True) -> GuardDecision | None:
        """Decide on an answer, or on the beginning of one; a question that was stopped has none."""
        if self.served is None or self.of_question is None or self.refuses(self.of_question):
            return self.of_question
        with self.trace.guard("answer") as decided:
            opinion = await self.served.opinion(Asked(messages=self.messages, answer=answer, whole=whole))
            found, before = self._decision(opinion, "answer"), self.of_question
            decided.append(found)
        return found.model_copy(
            update={
                "stage": before.stage or found.stage,  # the first one, where it is only watching
                "judge_id": found.judge_id or before.judge_id,
                "scope_score": before.scope_score,
                "failure": before.failure or found.failure,
            }
        )

    @property
    def cuts(self) -> bool:
        """Whether it can stop an answer that has begun."""
        return self.served is not None and self.served.guarding.mode == "enforce"

    @property
    def holds_back(self) -> bool:
        """Whether a stream's sentences wait until they are judged."""
        return self.cuts and self.served is not None and self.served.guarding.held_back == "sentence"

    @property
    def refusal(self) -> str:
        """What goes out in place of what it stops."""
        asked = next(message.content for message in reversed(self.messages) if message.role == "user")
        return refusal_to(self.served.refusals, asked) if self.served else ""

    def refuses(self, decision: GuardDecision | None) -> bool:
        """Whether the refusal goes out for this decision."""
        return decision is not None and decision.mode == "enforce" and decision.stage != ""

    def _decision(self, opinion: Opinion, stage: str) -> GuardDecision:
        guarding = self.served.guarding  # type: ignore[union-attr]
        objects = opinion.stops or (opinion.failure != "" and guarding.on_failure == "closed")
        return GuardDecision.model_validate(
            {
                "mode": guarding.mode,
                "stage": stage if objects else "",
                "judge_id": opinion.judge_id,
                "scope_score": opinion.scope_score,
                "answer_score": opinion.answer_score,
                "failure": opinion.failure,
            }
        )


def said(decision: GuardDecision) -> str:
    """A decision as the header ``x-ontopic-guard`` says it."""
    if decision.failure:
        return "down" if decision.failure in (DOWN, TOO_SLOW) else "unjudged"
    return decision.stage or "passed"
