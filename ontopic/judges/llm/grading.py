"""The four kinds of grading: an answer against the rubric, by the user's own prompt, against another answer, against
the truth."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ontopic.config.policy import Policy
from ontopic.config.settings import LLMJudgeSettings
from ontopic.endpoint.endpoint import Endpoint
from ontopic.endpoint.replies import Prompt, Reply
from ontopic.errors import UserError
from ontopic.judges.judge import outcome
from ontopic.judges.llm.grades import Choice, Form, Grade, grade_in, pass_probability
from ontopic.judges.llm.templates import Grading, Template, load_template, policy_values
from ontopic.judges.llm.verdict_cache import VerdictCache, content_key
from ontopic.progress import Advance
from ontopic.records import Record, Verdict


class PairwiseVerdict(BaseModel):
    """Which of two answers to one question is better.

    Attributes:
        winner: ``a`` is the record's answer and ``b`` the benchmark's; ``tie`` also where the verdict flips with the
            order in which the two are shown.
        explanation: one sentence for a reader; two where the verdict flips.
        cause: why it is unjudged; ``None`` otherwise.
    """

    model_config = ConfigDict(frozen=True)
    winner: Literal["a", "b", "tie", "unjudged"]
    explanation: str
    judge_id: str
    cause: str | None = None


@dataclass(frozen=True)
class Grader:
    """Who grades, and how.

    Attributes:
        endpoint: the LLM.
        template: the prompt; its kind of grading must be that of the function it is given to.
        policy: fills the prompt.
        weighted: score by the probabilities of the verdict's tokens (G-Eval, arXiv 2303.16634) where the server gives
            log-probabilities; the verdict follows the score.
        cache: of grades; ``None`` keeps them for one call.
    """

    endpoint: Endpoint
    template: Template
    policy: Policy
    weighted: bool = False
    cache: VerdictCache | None = None

    @property
    def id(self) -> str:
        """Readable, and ends in a digest of all that changes a verdict: model, server, prompt, policy and settings."""
        settings, template = self.endpoint.settings, self.template
        content: list[Any] = [settings.model, self.endpoint.base_url, template.digest, policy_values(self.policy)]
        content += [template.grading, self.weighted, _SCHEMAS[template.grading]]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return f"openai-{settings.model}-{template.name}-{digest[:12]}"


def open_grader(
    grading: Grading, settings: LLMJudgeSettings, *, policy: Policy, prompts: Path, cache: Path | str
) -> Grader:
    """The LLM of these settings, with the prompt of that name in the folder ``prompts`` and the grades at ``cache``.

    Raises:
        UserError: the prompt is missing or malformed.
    """
    template = load_template(prompts / f"{grading}.txt", grading)
    return Grader(Endpoint(settings), template, policy, settings.weighted, VerdictCache(cache))


def grade_single(grader: Grader, records: Iterable[Record], *, advance: Advance | None = None) -> Iterator[Verdict]:
    """Grade each answer against the policy's rubric.

    Verdicts come in order, while only a little of ``records`` is read ahead, so that a stream of any length fits into
    memory. A record whose request fails for good, whose reply holds no clear verdict, or which the budget does not
    cover is ``unjudged`` with that cause, and asked again in the next call only. A scope label goes before the judge's
    opinion of the scope.

    Args:
        advance: called with 1 for each verdict.

    Raises:
        UserError: no API key, an unusable cache, or the prompt is for another kind of grading.
    """
    return _verdicts(grader, "single", shown=_shown(records), advance=advance)


def grade_custom(grader: Grader, records: Iterable[Record], *, advance: Advance | None = None) -> Iterator[Verdict]:
    """Grade each answer by a prompt of the user's own, which says itself what passes; else as ``grade_single``."""
    return _verdicts(grader, "custom", shown=_shown(records), advance=advance)


def grade_reference(
    grader: Grader, records: Iterable[Record], *, references: Iterable[str], advance: Advance | None = None
) -> Iterator[Verdict]:
    """Grade each answer against the true one: it passes where it says what that says; else as ``grade_single``.

    Raises:
        ValueError: records and references are not equally many.
    """
    shown = (
        _Shown(record, {"answer": record.answer, "reference": reference})
        for record, reference in zip(records, references, strict=True)
    )
    return _verdicts(grader, "reference", shown=shown, advance=advance)


def grade_pairwise(
    grader: Grader, records: Iterable[Record], *, benchmark_answers: Iterable[str], advance: Advance | None = None
) -> Iterator[PairwiseVerdict]:
    """Compare each answer with a benchmark model's answer to the same question.

    The judge is asked in both orders. A verdict that flips with the order is a tie (Zheng et al., arXiv 2306.05685);
    where one order is unjudged, so is the pair. Else as ``grade_single``.

    Raises:
        ValueError: records and benchmark answers are not equally many.
    """

    def both_orders() -> Iterator[_Shown]:
        for record, other in zip(records, benchmark_answers, strict=True):
            yield _Shown(record, {"answer_a": record.answer, "answer_b": other})
            yield _Shown(record, {"answer_a": other, "answer_b": record.answer})

    grades = _graded(grader, "pairwise", shown=both_orders(), form=Choice)
    for first, second in zip(grades, grades, strict=True):
        yield _pairwise_verdict(first, second, judge_id=grader.id)
        if advance:
            advance(1)


@dataclass(frozen=True)
class _Shown:
    """What a judge is shown: a record's conversation, and answers by placeholder."""

    record: Record
    answers: dict[str, str]

    @property
    def content(self) -> dict[str, Any]:
        """What a grade is kept by: all that the judge is shown, and the scope label."""
        record = self.record
        conversation = {"conversation": record.request} if record.messages else {}
        return {"question": record.question, **conversation, **self.answers, "in_scope": record.in_scope}

    @property
    def quotable(self) -> list[str]:
        """What strangers wrote."""
        return [*(message["content"] for message in self.record.request), *self.answers.values()]


@dataclass(frozen=True)
class _Graded(Generic[Form]):
    """What came of one prompt: a grade, with the judge's probability of a pass where it is known, or a cause."""

    grade: Form | None = None
    score: float | None = None
    cause: str | None = None


def _shown(records: Iterable[Record]) -> Iterator[_Shown]:
    return (_Shown(record, {"answer": record.answer}) for record in records)


def _verdicts(
    grader: Grader, grading: Grading, *, shown: Iterable[_Shown], advance: Advance | None
) -> Iterator[Verdict]:
    judge_id = grader.id
    known: deque[tuple[bool | None, bool]] = deque()  # of the records read and not graded yet: label, answer is empty

    def labelled() -> Iterator[_Shown]:
        for each in shown:
            known.append((each.record.in_scope, not each.record.answer.strip()))
            yield each

    for graded in _graded(grader, grading, shown=labelled(), form=Grade):
        label, empty = known.popleft()
        yield _verdict(graded, label=label, empty=empty, judge_id=judge_id)
        if advance:
            advance(1)


def _graded(grader: Grader, grading: Grading, *, shown: Iterable[_Shown], form: type[Form]) -> Iterator[_Graded[Form]]:
    """Grade what is shown, in order: from the cache, or by asking once for all of the same content."""
    endpoint, template = grader.endpoint, grader.template
    if template.grading != grading:
        raise UserError(
            f"the judge prompt {template.name!r} is for {template.grading} grading, not for {grading}; name another"
        )
    cache = grader.cache or VerdictCache()
    values, judge_id = policy_values(grader.policy), grader.id
    unjudged: dict[bytes, _Graded[Form]] = {}

    def asked() -> Iterator[Prompt | _Graded[Form]]:
        for each in shown:
            key = content_key(judge_id, each.content)
            known = unjudged.get(key)
            if known is None and (known := _kept(cache.get(key), form)):
                endpoint.account.cached += 1
            if known:
                yield known
            else:
                text = template.render(values, template.asked(each.record) | each.answers)
                messages = [{"role": "user", "content": text}]
                yield Prompt(messages, key, _SCHEMAS[grading], grader.weighted, quotable=each.quotable)

    def read(prompt: Prompt, reply: Reply) -> _Graded[Form]:
        graded = _read(reply, form, prompt=prompt, grader=grader)
        if graded.grade:
            cache.put(prompt.key, {**graded.grade.model_dump(), "score": graded.score})
        else:
            unjudged[prompt.key] = graded
        return graded

    try:
        yield from endpoint.ask_all(asked(), read)
    finally:
        cache.flush()


def _kept(row: dict[str, Any] | None, form: type[Form]) -> _Graded[Form] | None:
    if row is None:
        return None
    try:
        return _Graded(form.model_validate(row), row.get("score"))
    except ValidationError:  # of another version of this program
        return None


def _read(reply: Reply, form: type[Form], *, prompt: Prompt, grader: Grader) -> _Graded[Form]:
    if reply.failure:
        return _Graded(cause=reply.failure)
    grade = grade_in(reply.text, form, template=grader.template.text, quotable=prompt.quotable)
    if grade is None:
        return _Graded(cause="the judge's reply holds no verdict")
    score = None
    if prompt.logprobs:
        score = pass_probability(reply.tokens, stated=grade.verdict)
        if score is None:
            name = grader.endpoint.settings.model
            grader.endpoint.warn_once(f"{name} gives no log-probabilities of its verdicts: scores are 0 or 1")
    return _Graded(grade, score)


def _verdict(graded: _Graded[Grade], *, label: bool | None, empty: bool, judge_id: str) -> Verdict:
    grade = graded.grade
    if grade is None:
        return Verdict(outcome="unjudged", score=None, explanation="", judge_id=judge_id, cause=graded.cause)
    stated, in_scope, declined, explanation = grade.verdict == "pass", grade.in_scope, grade.declined, grade.explanation
    score = float(stated) if graded.score is None else graded.score
    passed = score >= 0.5
    if passed != stated:
        note = f"The judge wrote {grade.verdict}, but gave a pass the probability {score:.2f}."
        explanation = f"{explanation} {note}".strip()
    if label is not None:
        if declined is not None and in_scope is not None and in_scope != label:
            right = outcome(in_scope=label, declined=declined, on_subject=not empty)
            score = score if right == passed else 1 - score
            passed = right
        in_scope = label
    if declined is None and in_scope is not None:
        declined = in_scope != passed
    return Verdict(
        outcome="pass" if passed else "fail",
        score=score,
        explanation=explanation,
        judge_id=judge_id,
        in_scope=in_scope,
        declined=declined,
    )


def _pairwise_verdict(first: _Graded[Choice], second: _Graded[Choice], *, judge_id: str) -> PairwiseVerdict:
    """One verdict of two; in the second, the answers were shown the other way round."""
    if first.grade is None or second.grade is None:
        return PairwiseVerdict(winner="unjudged", explanation="", judge_id=judge_id, cause=first.cause or second.cause)
    there, back = first.grade, second.grade
    turned: dict[str, Literal["a", "b", "tie"]] = {"a": "b", "b": "a", "tie": "tie"}
    if there.verdict == turned[back.verdict]:
        return PairwiseVerdict(winner=there.verdict, explanation=there.explanation, judge_id=judge_id)
    explanation = f"The verdict flips with the order. {there.explanation} In the other order: {back.explanation}"
    return PairwiseVerdict(winner="tie", explanation=explanation, judge_id=judge_id)


def _schema(*decisions: str, **parts: str) -> dict[str, Any]:
    properties: dict[str, Any] = {"explanation": {"type": "string"}}
    properties |= {name: {"type": kind} for name, kind in parts.items()}
    properties["verdict"] = {"type": "string", "enum": list(decisions)}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_SCHEMAS: dict[Grading, dict[str, Any]] = {
    "single": _schema("pass", "fail", in_scope="boolean", declined="boolean"),
    "custom": _schema("pass", "fail"),
    "pairwise": _schema("a", "b", "tie"),
    "reference": _schema("pass", "fail"),
}
