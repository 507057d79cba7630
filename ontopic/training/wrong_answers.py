"""Answers in scope that are wrong, which training rejects against right ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice, LLMJudgeSettings, TeacherSettings
from ontopic.data.labelled import Question
from ontopic.data.same_question import identity
from ontopic.progress import progress
from ontopic.records import Judged, Record
from ontopic.state.carried_files import here
from ontopic.state.workspace import Workspace


class WrongAnswer(BaseModel):
    """An answer that is known to be wrong.

    Attributes:
        origin: ``own_answer`` of a model, or ``synthetic`` where a teacher wrote it to be wrong.
        record_id: of the record that it is the answer of; empty where it is of none.
    """

    model_config = ConfigDict(frozen=True)
    answer: str
    origin: Literal["own_answer", "synthetic"]
    record_id: str = ""


def known_wrong(
    judged: Judged,
    *,
    labelled: Sequence[Question],
    taught: Mapping[str, str],
    teacher: TeacherSettings | None,
    judge: JudgeChoice,
    policy: Policy,
    workspace: Workspace,
) -> dict[str, list[WrongAnswer]]:
    """All answers to in-scope questions of the traffic that are known to be wrong, by the ``identity`` of the question:
    the model's own, and what a teacher writes where it is told to.

    Args:
        labelled: as ``found_wrong`` takes it.
        taught: right answers of a teacher or of people by the same, which go before the references.
        teacher: without it, or where it writes none, there are the model's own alone.
    """
    own = found_wrong(judged, labelled=labelled, judge=judge, policy=policy, workspace=workspace)
    found = {key: [answer] for key, answer in own.items()}
    if teacher is None or not teacher.wrong_answers:
        return found
    from ontopic.training.teacher import wrong_answers  # with a client of LLM servers, which who reads pairs needs not

    written = {q.identity: str(q.reference) for q in labelled if q.in_scope and q.reference} | dict(taught)
    requests = {key: record.request for record in judged.records if (key := identity(record.request)) in written}
    right = {key: written[key] for key in requests}
    for key, answer in wrong_answers(right, requests=requests, policy=policy, settings=teacher).items():
        found.setdefault(key, []).append(WrongAnswer(answer=answer, origin="synthetic"))
    return found


def found_wrong(
    judged: Judged, *, labelled: Sequence[Question], judge: JudgeChoice, policy: Policy, workspace: Workspace
) -> dict[str, WrongAnswer]:
    """The model's own answers in scope that are wrong, by the ``identity`` of their question.

    One that declines is not among them: the refusal is rejected anyway. An LLM judge grades an answer against the
    reference where its question has one, and there is a prompt for that. Otherwise the record's verdict counts.

    Args:
        labelled: whose scope goes before the judge's opinion, and which may have references.
    """
    known = {q.identity: q for q in labelled}
    prompt = here(judge.prompts / "reference.txt")
    grades_by_reference = isinstance(judge.settings, LLMJudgeSettings) and prompt.is_file()
    found: dict[str, WrongAnswer] = {}
    against: list[tuple[str, Record, str]] = []
    for record, verdict in zip(judged.records, judged.verdicts, strict=True):
        label = known.get(key := identity(record.request))
        in_scope = label.in_scope if label else verdict.in_scope
        if not in_scope or verdict.declined or verdict.outcome == "unjudged" or not record.answer.strip():
            continue
        if label and label.reference and grades_by_reference:
            against.append((key, record, label.reference))
        elif verdict.outcome == "fail" and verdict.declined is False:
            found.setdefault(key, WrongAnswer(answer=record.answer, origin="own_answer", record_id=record.id))
    if against and isinstance(judge.settings, LLMJudgeSettings):
        from ontopic.judges.llm.grading import grade_reference, open_grader

        grader = open_grader(
            "reference", judge.settings, policy=policy, prompts=judge.prompts, cache=workspace.verdicts
        )
        records = [record for _, record, _ in against]
        with progress("answers against their references", len(records), unit="records") as advance:
            references = [reference for *_, reference in against]
            grades = list(grade_reference(grader, records, references=references, advance=advance))
        for (key, record, _), grade in zip(against, grades, strict=True):
            if grade.outcome == "fail":
                found.setdefault(key, WrongAnswer(answer=record.answer, origin="own_answer", record_id=record.id))
    return found
