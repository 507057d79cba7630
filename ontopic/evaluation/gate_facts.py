"""What the promotion record holds of a gate: the facts of its entry, and the files that the entry names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from ontopic.data.labelled import Question
from ontopic.data.sealed import question_id
from ontopic.evaluation.answers import Evaluation
from ontopic.evaluation.evidence import Evidence
from ontopic.evaluation.gate import Decision
from ontopic.evaluation.provenance import Provenance, provenance
from ontopic.evaluation.segments import Segment, segments
from ontopic.judges.cards.card import JudgeCard
from ontopic.records import Record
from ontopic.state.workspace import Workspace

_DIGITS = 16  # of the hash that names a folder of files


class AskedQuestions(BaseModel):
    """The gate's questions.

    Attributes:
        seed: of their draw; ``None`` where it is not known.
        drawn_sha256: of the questions as they were drawn; empty where it is not known.
        sha256: of the questions that were asked, in their order, with scope and the messages around them.
        ids: of each question, as the look's entry has them.
    """

    model_config = ConfigDict(frozen=True)
    n: int
    in_scope: int
    seed: int | None
    drawn_sha256: str
    sha256: str
    ids: list[str]


class GateFacts(BaseModel):
    """The facts of a gate's entry.

    Attributes:
        against: the champion's version.
        decision: the gate's, with all tests, counts, limits and what it could have seen; without its page's path, and
            without card and lineage, of which there is more beside it.
        card: of the judge, without its groups and bins.
        look: how often this policy's gates have looked at held-out questions, this time counted; ``None`` where a
            rehearsal kept the challenger from a look.
        alpha: the two-sided level of this look's test of improvement; ``None`` where it is not known.
        alpha_spent: the sum of these levels over all looks; of looks whose level is known.
        attempt: of the loop; ``None`` for a retraining.
        trained_by: who started the loop or `watch` that trained the challenger; ``None`` where it is not known.
        weights_sha256, champion_digest: of the challenger's weights now, of the champion's at registration.
        training_data: what the challenger was trained on: the tags of its version.
        settings: those of training, model and evaluation.
        segments: guardrail score by kind, language and intent.
        files: paths relative to the state folder, with their sha256.
    """

    model_config = ConfigDict(frozen=True)
    gate: Literal["passed", "failed"]
    against: str
    decision: dict[str, JsonValue]
    card: dict[str, JsonValue]
    questions: AskedQuestions
    look: int | None
    alpha: float | None
    alpha_spent: float | None = None
    attempt: int | None
    trained_by: str | None
    policy_sha256: str
    questions_sha256: str
    weights_sha256: str
    champion_digest: str
    training_data: dict[str, str]
    settings: dict[str, JsonValue]
    segments: list[Segment]
    code: Provenance
    files: dict[str, str]


def gate_facts(
    decision: Decision,
    card: JudgeCard,
    *,
    champion: Evaluation,
    challenger: Evaluation,
    evidence: Evidence,
    weights: Weights,
    workspace: Workspace,
) -> GateFacts:
    """Collect the facts, and keep the page, the decision, all answers and verdicts as files in the state folder.

    Args:
        card: of the judge that the decision goes by.
        champion, challenger: what the decision is on.

    Raises:
        OSError: the decision's page can't be read, or the files can't be written.
    """
    said = decision.model_dump(mode="json", exclude={"report", "card", "lineage"})
    return GateFacts(
        gate="passed" if decision.passed else "failed",
        against=champion.model_version,
        decision=said,
        card=card.model_dump(mode="json", exclude={"groups", "calibration", "usage"}) | {"n": card.n},
        questions=_asked(challenger.questions, evidence),
        look=evidence.look,
        alpha=evidence.alpha,
        attempt=evidence.attempt,
        trained_by=evidence.trained_by,
        policy_sha256=evidence.policy_sha256,
        questions_sha256=evidence.questions_sha256,
        weights_sha256=weights.challenger_sha256,
        champion_digest=weights.champion_digest,
        training_data=weights.training_data,
        settings=evidence.settings,
        segments=segments(champion, challenger),
        code=provenance(),
        files=_kept(decision, said, champion=champion, challenger=challenger, workspace=workspace),
    )


class Weights(BaseModel):
    """What is known of both models' weights.

    Attributes:
        challenger_sha256: of the folder as it is now.
        champion_digest: as it was registered; empty where it is not known.
        training_data: what the challenger's version says of what it was trained on.
    """

    model_config = ConfigDict(frozen=True)
    challenger_sha256: str
    champion_digest: str = ""
    training_data: dict[str, str] = {}

    @classmethod
    def of(cls, challenger_sha256: str, *, tags: Mapping[str, str], champion_tags: Mapping[str, str]) -> Weights:
        """From the tags of the two versions."""
        names = ("base_version", "base_digest", "preferences", "preferences_sha256", "digest")
        return cls(
            challenger_sha256=challenger_sha256,
            champion_digest=champion_tags.get("ontopic.digest", ""),
            training_data={name: tags[f"ontopic.{name}"] for name in names if f"ontopic.{name}" in tags},
        )


def _asked(questions: Sequence[Question], evidence: Evidence) -> AskedQuestions:
    rows = [
        _line(question.model_dump(mode="json", include={"question", "in_scope", *_around(question)}))
        for question in questions
    ]
    return AskedQuestions(
        n=len(questions),
        in_scope=sum(question.in_scope for question in questions),
        seed=evidence.seed,
        drawn_sha256=evidence.sample_sha256,
        sha256=hashlib.sha256(b"".join(rows)).hexdigest(),
        ids=[question_id(question) for question in questions],
    )


def _around(question: Question) -> set[str]:
    return {"history", "after"} if question.after else {"history"}  # as earlier releases wrote it, where it says all


def _kept(
    decision: Decision, said: Any, *, champion: Evaluation, challenger: Evaluation, workspace: Workspace
) -> dict[str, str]:
    """Write the files into a folder that is named after all of them, so that no later gate replaces one.

    Evidently's report keeps its name, by which the page links to it.
    """
    contents = {"gate.html": decision.report.read_bytes(), "decision.json": _line(said)}
    if decision.evidently.is_file():
        contents[decision.evidently.name] = decision.evidently.read_bytes()
    for role, of in (("champion", champion), ("challenger", challenger)):
        asked = [
            question.model_dump(mode="json", include={"question", "kind", "intent", *_around(question)})
            for question in of.questions
        ]
        answers = [_answer(record) for record in of.records]
        contents[f"{role}-answers.jsonl"] = b"".join(_line(a | b) for a, b in zip(asked, answers, strict=True))
        contents[f"{role}-verdicts.jsonl"] = b"".join(_line(verdict.model_dump(mode="json")) for verdict in of.verdicts)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    folder = workspace.evidence / hashlib.sha256(json.dumps(hashes).encode()).hexdigest()[:_DIGITS]
    workspace.files.write_folder(folder, contents.items())
    return {(folder / name).relative_to(workspace.root).as_posix(): sha256 for name, sha256 in hashes.items()}


def _answer(record: Record) -> dict[str, Any]:
    """What users got, with what the guard withheld of it where one stands before them."""
    fields = {"answer", "in_scope", "finished"} | ({"guard"} if record.guard else set())
    return record.model_dump(mode="json", include=fields)


def _line(value: Any) -> bytes:
    """JSON of one form, in ASCII, with a newline."""
    return json.dumps(value, sort_keys=True).encode() + b"\n"
