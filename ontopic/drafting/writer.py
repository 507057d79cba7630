"""An LLM that drafts a policy and its labelled data."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ontopic.config.policy import Example
from ontopic.config.settings import EndpointSettings
from ontopic.data.same_question import identity
from ontopic.data.splits import RECORD_SHARES, with_splits
from ontopic.data.synthetic import MarkedQuestion, MarkedRecord
from ontopic.drafting import prompts
from ontopic.drafting.documents import Documents
from ontopic.drafting.draft import Draft, Intent
from ontopic.drafting.selection import chosen_questions, in_turn
from ontopic.endpoint.endpoint import Endpoint
from ontopic.endpoint.inert import inert
from ontopic.endpoint.json_objects import objects_in
from ontopic.endpoint.replies import Prompt, Reply
from ontopic.errors import UserError
from ontopic.progress import progress

logger = logging.getLogger(__name__)

_MORE = 1.4  # times as many questions are asked for as are wanted, as some are nearly the same
_ANSWERS = 8  # a prompt
_SECONDS_BETWEEN_WRITES = 1.0  # of a file that is written whole, and waits for the disk
_RECORDS_SHARE = 0.25  # of the number of questions
# Of the records of a scope, how many are of each kind.
_SHARES: dict[prompts.Kind, float] = {
    "in_scope_answer": 0.4,
    "over_refusal": 0.3,
    "off_topic_answer": 0.3,
    "refusal_in_other_words": 0.5,
    "leak": 0.25,
    "comply_after_refusal": 0.25,
}

Form = TypeVar("Form", bound=BaseModel)


class Writer:
    """Drafts with an LLM, and keeps what it wrote.

    After a failure or Ctrl-C nothing is asked for twice; a process that is killed loses the replies of a second.

    Args:
        settings: of the LLM.
        documents: what it is shown.
        keep: called with the draft whenever something has come.
    """

    def __init__(self, settings: EndpointSettings, documents: Documents, *, keep: Callable[[Draft], object]) -> None:
        self._endpoint, self._documents, self._keep = Endpoint(settings), documents, keep
        self._latest: Draft | None = None
        self._kept_at = 0.0

    def check(self) -> None:
        """Raises what ``Endpoint.check`` raises."""
        self._endpoint.check()

    def policy(self, draft: Draft) -> Draft:
        """The draft with what the policy is to say; nobody has agreed to it.

        Raises:
            UserError: the LLM wrote no such thing, or cannot be asked.
        """
        written, causes = self._objects(prompts.policy_prompt(draft, self._documents), prompts.WrittenPolicy)
        if not written:
            raise UserError(
                f"{self._name} wrote no policy ({'; '.join(causes)}); run the command again with another `teacher`, or "
                "in a configuration without one write it yourself"
            )
        found = written[0]
        examples = tuple(Example.model_validate(example.model_dump()) for example in found.examples)
        proposed = {"definition": found.definition, "border": found.border, "refusal": found.refusal}
        return self._kept(draft.model_copy(update=proposed | {"examples": examples}))

    def data(self, draft: Draft, *, n: int) -> Draft:
        """The draft with ``n`` questions, the person's own among them, and records of a part of them.

        Fewer where the LLM wrote fewer that differ, which is logged.

        Raises:
            UserError: the LLM wrote nothing that can be used, or cannot be asked.
        """
        self._latest = None  # what ``policy`` wrote was changed since
        try:
            return self._data(draft, n)
        finally:
            if self._latest is not None:
                self._keep(self._latest)

    def _data(self, draft: Draft, n: int) -> Draft:
        if not draft.intents:
            draft = self._kept(draft.model_copy(update={"intents": self._intents(draft)}))
        draft = self._questions(draft, n)
        own = [question for question in draft.questions if question.origin == "own"]
        written = [question for question in draft.questions if question.origin == "synthetic"]
        questions = chosen_questions(written, own=own, n=n)
        draft = self._records(draft.model_copy(update={"questions": tuple(questions)}), round(_RECORDS_SHARE * n))
        beside = [(question.spoken, question.split) for question in questions if question.split]
        records = with_splits(draft.records, RECORD_SHARES, source=None, beside=beside)
        return self._kept(draft.model_copy(update={"records": tuple(records), "generated": True}))

    @property
    def _name(self) -> str:
        return self._endpoint.settings.model

    def _kept(self, draft: Draft) -> Draft:
        """The draft, which is kept at once, or, where one was a moment ago, soon."""
        self._latest = draft
        if time.monotonic() - self._kept_at > _SECONDS_BETWEEN_WRITES:
            self._keep(draft)
            self._kept_at = time.monotonic()
        return draft

    def _intents(self, draft: Draft) -> tuple[Intent, ...]:
        found: dict[str, Intent] = {}
        for in_scope in (True, False):
            prompt = prompts.intents_prompt(draft, self._documents, in_scope=in_scope)
            written, causes = self._objects(prompt, prompts.WrittenIntent, under="intents")
            if not written:
                which = "in scope" if in_scope else "out of scope"
                raise UserError(f"{self._name} named no intent {which} ({'; '.join(causes)}); give another `teacher`")
            for each in written[: prompts.INTENTS]:
                name = f"other_{each.name}" if each.name in found and not in_scope else each.name
                found[name] = Intent(name=name, in_scope=in_scope, about=each.about)
        return tuple(found.values())

    def _questions(self, draft: Draft, n: int) -> Draft:
        """The draft with all questions that the LLM wrote, also those that are nearly the same."""
        per_scope = Counter(intent.in_scope for intent in draft.intents)
        styles = range(len(prompts.STYLES))
        asked = [(intent, style) for intent in draft.intents for style in styles]
        asked = [each for each in asked if prompts.questions_key(*each) not in draft.asked]
        sizes = {scope: -(-_MORE * n / 2 // (count * len(styles))) for scope, count in per_scope.items()}
        stream = [
            prompts.questions_prompt(
                draft, self._documents, intent=intent, style=style, n=max(2, int(sizes[intent.in_scope]))
            )
            for intent, style in asked
        ]
        for (intent, style), (rows, _) in zip(
            asked, self._batches(stream, prompts.WrittenQuestion, under="questions", what="questions"), strict=True
        ):
            questions = [question for row in rows if (question := _question(row, intent))]
            done = {"asked": (*draft.asked, prompts.questions_key(intent, style))}
            draft = self._kept(draft.model_copy(update={"questions": (*draft.questions, *questions), **done}))
        return draft

    def _records(self, draft: Draft, n: int) -> Draft:
        """The draft with records of its questions, none of which is for the gate."""
        own = sum(record.origin == "own" for record in draft.records)
        batches = [
            (kind, batch, f"answers {kind} {number}")
            for kind, chosen in _asked_for(draft.questions, max(0, n - own)).items()
            for number, batch in enumerate(_in_batches(chosen))
        ]
        batches = [each for each in batches if each[2] not in draft.asked]
        stream = [
            prompts.answers_prompt(
                draft, self._documents, kind=kind, questions=[question.question for question in batch], key=key
            )
            for kind, batch, key in batches
        ]
        for (kind, batch, key), (rows, _) in zip(
            batches, self._batches(stream, prompts.WrittenAnswer, under="answers", what="records"), strict=True
        ):
            known = {record.conversation_and_answer for record in draft.records}
            fresh = [
                record for record in _answered(kind, batch, rows=rows) if record.conversation_and_answer not in known
            ]
            done = {"asked": (*draft.asked, key)}
            draft = self._kept(draft.model_copy(update={"records": (*draft.records, *fresh), **done}))
        return draft

    def _objects(self, prompt: Prompt, form: type[Form], *, under: str = "") -> tuple[list[Form], list[str]]:
        return next(self._endpoint.ask_all([prompt], lambda _, reply: _read(reply, form, under=under)))

    def _batches(
        self, stream: Sequence[Prompt], form: type[Form], *, under: str, what: str
    ) -> Iterator[tuple[list[Form], list[str]]]:
        """What came of each prompt; how many gave nothing, and why, is logged.

        Raises:
            UserError: none of them gave anything.
        """
        if not stream:
            return
        causes, empty = Counter[str](), 0
        with progress(f"{what}, written by {self._name}", len(stream), unit="prompts") as advance:
            for found in self._endpoint.ask_all(stream, lambda _, reply: _read(reply, form, under=under)):
                empty += not found[0]
                causes.update(found[1])
                yield found
                advance(1)
        if not causes:
            return
        said = "; ".join(f"{count} {cause}" for cause, count in causes.most_common(3))
        if empty == len(stream):
            raise UserError(f"{self._name} wrote no {what} that can be used ({said}); give another `teacher`")
        logger.warning(
            "%s: of %d prompts for %s some gave less than was asked (%s)", self._name, len(stream), what, said
        )


def _read(reply: Reply, form: type[Form], *, under: str) -> tuple[list[Form], list[str]]:
    """What a reply holds, and why where something in it cannot be used.

    Args:
        under: the key of the list that its object holds; empty for an object that is the form itself.
    """
    if reply.failure:
        return [], [reply.failure]
    for written in reversed(objects_in(reply.text).found):
        values = written.values.get(under) if under else [written.values]
        if isinstance(values, list):
            found = []
            for value in values:
                try:
                    found.append(form.model_validate(value))
                except ValidationError:
                    continue
            return found, ["a row is not as it was asked for"] * (len(values) - len(found))
    return [], ["the reply holds no such JSON object"]


def _question(row: prompts.WrittenQuestion, intent: Intent) -> MarkedQuestion | None:
    reference = inert(row.reference).strip() if row.reference and intent.in_scope else None
    text = inert(row.question).strip()
    if not identity([{"role": "user", "content": text}]).strip():
        return None
    return MarkedQuestion(
        question=text,
        in_scope=intent.in_scope,
        intent=intent.name,
        reference=reference or None,
        origin="synthetic",
        reviewed=False,
    )


def _asked_for(questions: Sequence[MarkedQuestion], n: int) -> dict[prompts.Kind, list[MarkedQuestion]]:
    """The questions that get an answer of each kind: ``n`` in all, from their intents in turn, none of the gate's."""
    found: dict[prompts.Kind, list[MarkedQuestion]] = {}
    for in_scope in (True, False):
        free = [q for q in questions if q.in_scope is in_scope and q.split != "evaluation"]
        left = in_turn(free, len(free))
        for kind, (of_scope, *_) in prompts.KINDS.items():
            if of_scope is in_scope:
                wanted = round(n / 2 * _SHARES[kind])
                found[kind], left = left[:wanted], [*left[wanted:], *left[:wanted]]
    return found


def _in_batches(questions: Sequence[MarkedQuestion]) -> list[Sequence[MarkedQuestion]]:
    return [questions[start : start + _ANSWERS] for start in range(0, len(questions), _ANSWERS)]


def _answered(
    kind: prompts.Kind, batch: Sequence[MarkedQuestion], *, rows: Sequence[prompts.WrittenAnswer]
) -> Iterator[MarkedRecord]:
    in_scope, label, _, why = prompts.KINDS[kind]
    for row in rows:
        if 1 <= row.number <= len(batch):
            question = batch[row.number - 1]
            yield MarkedRecord(
                question=question.question,
                answer=inert(row.answer),
                label=label,
                in_scope=in_scope,
                kind=kind,
                intent=question.intent,
                why=why,
                origin="synthetic",
                reviewed=False,
            )
