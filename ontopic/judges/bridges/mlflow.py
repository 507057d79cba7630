"""Judges in MLflow: verdicts as assessments of traces, and a judge as a scorer of ``mlflow.genai.evaluate``."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import mlflow
from mlflow.entities import AssessmentError, AssessmentSource, AssessmentSourceType, Feedback
from mlflow.exceptions import MlflowException
from mlflow.genai.scorers import Scorer, scorer
from pydantic import ValidationError

from ontopic.config.policy import Policy
from ontopic.errors import UserError
from ontopic.judges.judge import Judge
from ontopic.records import Message, Record, Verdict
from ontopic.state.workspace import Workspace

NAME = "passes"
"""What the assessments are called in MLflow, unless said otherwise."""

_GATHERING_S = 0.005  # long enough for MLflow's threads to come back with their next rows


def log_verdicts(trace_ids: Sequence[str], verdicts: Sequence[Verdict], *, name: str = NAME) -> None:
    """Attach to each trace its verdict, as ``feedback`` makes it.

    Raises:
        UserError: MLflow does not take one, as for a trace that it does not have.
        ValueError: traces and verdicts are not equally many.
    """
    for trace_id, verdict in zip(trace_ids, verdicts, strict=True):
        try:
            mlflow.log_assessment(trace_id, feedback(verdict, name))
        except MlflowException as error:
            raise UserError(
                f"the verdict on trace {trace_id} cannot be attached at {mlflow.get_tracking_uri()}"
                f" ({error.message}); give the id of a trace there"
            ) from error


def feedback(verdict: Verdict, name: str = NAME) -> Feedback:
    """A verdict as MLflow's feedback.

    Returns:
        The value ``yes`` or ``no``, which MLflow counts as passed or not, with the explanation as rationale; for an
        unjudged record no value but an error with the cause. The metadata hold score, scope and declination, as far as
        they are known. The source is the judge's id, of type ``CODE`` for the local judge, else ``LLM_JUDGE``.
    """
    kind = AssessmentSourceType.CODE if verdict.judge_id.startswith("local-") else AssessmentSourceType.LLM_JUDGE
    known = {"score": verdict.score, "in_scope": verdict.in_scope, "declined": verdict.declined}
    unjudged = verdict.outcome == "unjudged"
    return Feedback(
        name=name,
        value=None if unjudged else "yes" if verdict.outcome == "pass" else "no",
        error=AssessmentError("UNJUDGED", verdict.cause) if unjudged else None,
        rationale=verdict.explanation or None,
        source=AssessmentSource(kind, verdict.judge_id),
        metadata={key: str(value) for key, value in known.items() if value is not None},
    )


def kept_scorer(judge_id: str, policy: Policy, *, workspace: Workspace) -> Scorer:
    """An embedded judge of the state folder as a scorer of ``mlflow.genai.evaluate``, with its card's figures in its
    description.

    MLflow's server registers no scorer that is Python code unless it is told to run such, so this is made in the
    process that evaluates.

    Raises:
        UserError: no embedded judge of this id is kept there.
    """
    from ontopic.judges.cards.calibration import kept_or_measured
    from ontopic.judges.local.judge import load_local_judge

    folder = workspace.judges / judge_id
    if folder.parent != workspace.judges or not folder.is_dir():
        kept = ", ".join(sorted(each.name for each in workspace.judges.glob("local-*") if each.is_dir())) or "none yet"
        raise UserError(f"no embedded judge {judge_id[:80]!r} is in {workspace.judges}; there are: {kept}")
    judge = load_local_judge(folder)
    card = kept_or_measured(judge, policy, workspace=workspace, scope_given=False).card
    return as_scorer(judge, description=f"OnTopic's embedded judge. On {card.n:,} labelled records: {card.in_line}.")


def as_scorer(judge: Judge, name: str = NAME, *, description: str | None = None) -> Scorer:
    """The judge as a scorer of ``mlflow.genai.evaluate``.

    A row's ``inputs`` hold the ``question``, or in OpenAI's shape the ``messages`` that were sent; its ``outputs`` are
    the answer, and its ``expectations`` may hold ``in_scope``. Another row gets an error that says so, and no value.
    MLflow scores rows one by one on many threads; their records are put together while the judge is busy, so that it
    judges them in batches and never two at once.
    """
    batches = _Batches(judge)

    def score(inputs: Any, outputs: Any, *, expectations: Any = None) -> Feedback:
        record = _record(inputs, outputs)
        if record is None:
            wrong = "a row needs 'inputs' with a text 'question' or a list 'messages', and a text as 'outputs'"
            return feedback(
                Verdict(outcome="unjudged", score=None, explanation="", judge_id=judge.id, cause=wrong), name
            )
        in_scope = expectations.get("in_scope") if isinstance(expectations, Mapping) else None
        known = record.model_copy(update={"in_scope": in_scope if isinstance(in_scope, bool) else None})
        return feedback(batches.judge(known), name)

    # No time-out by MLflow: it would count the wait for the batch before, and a judge has its own.
    return scorer(score, name=name, description=description, timeout=0)


def _record(inputs: Any, outputs: Any) -> Record | None:
    """What a row of MLflow's says was asked and answered; ``None`` where it says no such thing."""
    given = inputs if isinstance(inputs, Mapping) else {}
    try:
        messages = tuple(Message.model_validate(dict(message)) for message in given.get("messages") or ())
        asked = [message.content for message in messages if message.role == "user"]
        question = given.get("question", asked[-1] if asked else None)
        return Record(question=question, answer=outputs, messages=messages if len(messages) > 1 else ())
    except (ValidationError, TypeError, ValueError):
        return None


class _Batches:
    """Lets many threads ask one judge: the first to come judges for all that come in a moment, or while it is busy."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._next: list[tuple[Record, Future[Verdict]]] = []
        self._busy, self._changed = False, threading.Condition()

    def judge(self, record: Record) -> Verdict:
        verdict: Future[Verdict] = Future()
        with self._changed:
            self._next.append((record, verdict))
            self._changed.wait_for(lambda: verdict.done() or not self._busy)
            if verdict.done():
                return verdict.result()
            self._busy = True
        try:
            time.sleep(_GATHERING_S)
            self._judge_next()
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
        return verdict.result()

    def _judge_next(self) -> None:
        with self._changed:
            batch, self._next = self._next, []
        try:
            for (_, verdict), said in zip(batch, self._judge.judge([record for record, _ in batch]), strict=True):
                verdict.set_result(said)
        except BaseException as error:  # each thread raises it; none is left waiting
            for _, verdict in batch:
                if not verdict.done():
                    verdict.set_exception(error)
