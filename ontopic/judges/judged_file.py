"""Judging a file of records into a file of verdicts: a stream in, a stream out, and resumable in the middle."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, tee
from pathlib import Path
from typing import Literal

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeSettings, LLMJudgeSettings
from ontopic.data.labelled import LabelledRecord
from ontopic.data.rows import RowStream
from ontopic.endpoint.refusals import RefusedError
from ontopic.errors import UserError
from ontopic.judges.cards.card import JudgeCard, judge_card
from ontopic.judges.judge import Judge, judge_stream
from ontopic.judges.llm.grading import PairwiseVerdict, grade_pairwise, grade_reference, open_grader
from ontopic.records import Record, Verdict
from ontopic.state.whole_file import writing

Rows = Iterable[LabelledRecord]
RowVerdict = Verdict | PairwiseVerdict


@dataclass(frozen=True)
class RowJudge:
    """What judges rows of a file: a judge, or one kind of grading by an LLM.

    Attributes:
        id: changes whenever it would judge differently.
        judge: one verdict a row, in order, while only a little is read ahead.
        needs: the optional field that each row must have.
    """

    id: str
    judge: Callable[[Rows], Iterator[RowVerdict]]
    needs: Literal["benchmark_answer", "reference"] | None = None

    def unjudged(self, cause: str) -> RowVerdict:
        """What stands for a row that the judge was not asked for."""
        if self.needs == "benchmark_answer":
            return PairwiseVerdict(winner="unjudged", explanation="", judge_id=self.id, cause=cause)
        return Verdict(outcome="unjudged", score=None, explanation="", judge_id=self.id, cause=cause)


def by_judge(judge: Judge) -> RowJudge:
    """Verdicts of a judge, which decides on the scope too."""
    return RowJudge(judge.id, lambda rows: judge_stream(judge, _records(rows)))


def by_grading(
    grading: Literal["pairwise", "reference"],
    settings: JudgeSettings,
    *,
    policy: Policy,
    prompts: Path,
    cache: Path | str,
) -> RowJudge:
    """Verdicts of the LLM that the configuration names as judge: against another model's answer, or against the truth.

    Args:
        prompts: folder of the judge prompts, which has ``pairwise.txt`` and ``reference.txt``.
        cache: the file of the verdict cache, or its database's URL.

    Raises:
        UserError: the configured judge is not an LLM, or the prompt is missing or malformed.
    """
    if not isinstance(settings, LLMJudgeSettings):
        raise UserError(
            f"{grading} grading needs an LLM, and the configured judge is {settings.kind!r}; use kind openai"
        )
    grader = open_grader(grading, settings, policy=policy, prompts=prompts, cache=cache)

    def pairwise(rows: Rows) -> Iterator[PairwiseVerdict]:
        ours, others = tee(rows)
        return grade_pairwise(grader, _records(ours), benchmark_answers=(str(row.benchmark_answer) for row in others))

    def by_reference(rows: Rows) -> Iterator[Verdict]:
        ours, others = tee(rows)
        return grade_reference(grader, _records(ours), references=(str(row.reference) for row in others))

    if grading == "pairwise":
        return RowJudge(grader.id, pairwise, "benchmark_answer")
    return RowJudge(grader.id, by_reference, "reference")


def _records(rows: Rows) -> Iterator[Record]:
    return (row.record() for row in rows)


def _line(row: LabelledRecord, said: RowVerdict) -> dict[str, object]:
    """The JSON object that is written for a row and its verdict."""
    line: dict[str, object] = {"question": row.question, "answer": row.answer}
    if row.messages:
        line["messages"] = row.request
    if row.label:
        line["label"] = row.label
    if isinstance(said, PairwiseVerdict):
        return line | {"benchmark_answer": row.benchmark_answer} | said.model_dump()
    return line | {"verdict": said.outcome} | said.model_dump(exclude={"outcome"})


def write_judged(
    rows: RowStream[LabelledRecord], judge: RowJudge, *, out: Path, advance: Callable[[int], object]
) -> int:
    """Judge rows into a JSONL file, a line a row; the file appears when it is whole.

    Until then lines go to ``.OUT.DIGEST.part`` beside it, the digest being one of judge and rows. A later call with
    the same ones keeps the whole lines found there and judges the rest.

    Args:
        advance: called with the number of rows done since the last call, kept ones included.

    Returns:
        How many lines an earlier call had left.

    Raises:
        UserError: the file can't be written; a row lacks the field that the judge needs; or a server refuses for a
            reason that no repetition mends: then the file is whole all the same, and the rows left are unjudged in it.
    """
    part = out.with_name(f".{out.name}.{_digest(rows, judge)[:12]}.part")
    kept = _whole_lines(part)
    advance(kept)
    pending: deque[LabelledRecord] = deque()

    def left() -> Iterator[LabelledRecord]:
        for row in islice(rows, kept, None):
            pending.append(row)
            yield row

    # Not by ``whole_file``: what is there already must outlast a call that is stopped.
    # Lone surrogates can stand in JSON input; no file can hold them.
    with writing(out):
        file = part.open("a", encoding="utf-8", errors="replace")

    def write(row: LabelledRecord, said: RowVerdict) -> None:
        with writing(out):
            file.write(json.dumps(_line(row, said), ensure_ascii=False) + "\n")
        advance(1)

    with file:
        done, refused = kept, None
        try:
            for said in judge.judge(left()):
                write(pending.popleft(), said)
                done += 1
        except RefusedError as error:
            refused = error
            for row in islice(rows, done, None):
                write(row, judge.unjudged(str(error)))
        with writing(out):
            file.flush()
            os.fsync(file.fileno())
    with writing(out):
        part.replace(out)
    if refused:
        raise RefusedError(f"{refused}; {rows.n - done:,} of the {rows.n:,} records are unjudged for that in {out}")
    return kept


def _digest(rows: RowStream[LabelledRecord], judge: RowJudge) -> str:
    """Of the judge and of all rows, each of which must hold what the judge needs."""
    digest = hashlib.sha256(judge.id.encode())
    for number, row in enumerate(rows, start=1):
        if judge.needs and getattr(row, judge.needs) is None:
            raise UserError(f"{rows.source}: row {number} has no {judge.needs!r}, which this grading needs; add it")
        digest.update(row.model_dump_json().encode())
    return digest.hexdigest()


def _whole_lines(part: Path) -> int:
    """How many whole lines the file has; a half-written last one is cut off."""
    if not part.is_file():
        return 0
    lines = whole = 0
    with part.open("rb+") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            lines, whole = lines + 1, whole + len(line)
        file.truncate(whole)
    return lines


def card_of_file(judge_id: str, rows: Rows, *, out: Path) -> JudgeCard | None:
    """The judge's card on a file of ``write_judged``; ``None`` where no row carries a label.

    Args:
        rows: those that the file was made of.
    """
    # What a card does not read is left out, and rows that are alike to it are one object: 100,000 fit into memory.
    alike: dict[tuple[str, str, str], LabelledRecord] = {}
    labelled, verdicts = [], []
    with out.open(encoding="utf-8") as file:
        for row, text in zip(rows, file, strict=True):
            if row.label is None:
                continue
            key = (row.label, row.intent, row.kind)
            labelled.append(alike.setdefault(key, row))
            said = json.loads(text)
            verdicts.append(
                Verdict(
                    outcome=said["verdict"], score=said["score"], explanation="", judge_id=judge_id, cause=said["cause"]
                )
            )
    return judge_card(judge_id, labelled, verdicts=verdicts) if labelled else None


def causes(out: Path) -> Counter[str]:
    """How many records of a file of verdicts are unjudged for which cause."""
    with out.open(encoding="utf-8") as file:
        lines = map(json.loads, file)
        return Counter(line["cause"] or "no cause given" for line in lines if _outcome(line) == "unjudged")


def _outcome(line: dict[str, str]) -> str:
    return line["winner"] if "winner" in line else line["verdict"]


def winners(out: Path) -> Counter[str]:
    """How often each of ``a``, ``b``, ``tie`` and ``unjudged`` occurs in a file of pairwise verdicts."""
    with out.open(encoding="utf-8") as file:
        return Counter(json.loads(line)["winner"] for line in file)
