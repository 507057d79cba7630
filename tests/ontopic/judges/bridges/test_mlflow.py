"""Judges in MLflow: a real tracking database, a judge that is a rule."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import pytest
from chats import bank_chat
from loopback import ROOT
from mlflow.entities import Feedback

from ontopic.config.policy import Policy
from ontopic.endpoint.account import Account
from ontopic.errors import UserError
from ontopic.judges.bridges.mlflow import as_scorer, kept_scorer, log_verdicts
from ontopic.progress import Advance
from ontopic.records import Record, Verdict
from ontopic.state.workspace import open_workspace


@dataclass
class WordJudge:
    """Passes an answer that says "card"; cannot judge an empty one, and breaks where the question says so."""

    id: str = "local-word"
    account: Account = field(default_factory=Account)
    batches: list[int] = field(default_factory=list)
    seen: list[Record] = field(default_factory=list)
    seconds: float = 0.0
    at_work: int = 0

    def judge(self, records: Sequence[Record], advance: Advance | None = None) -> list[Verdict]:
        self.at_work += 1
        assert self.at_work == 1, "two threads at once"
        self.batches.append(len(records))
        self.seen.extend(records)
        time.sleep(self.seconds)
        if any(record.question == "break" for record in records):
            self.at_work -= 1
            raise RuntimeError("broken")
        verdicts = [self.verdict(record) for record in records]
        self.at_work -= 1
        return verdicts

    def verdict(self, record: Record) -> Verdict:
        if not record.answer:
            return Verdict(
                outcome="unjudged", score=None, explanation="", judge_id=self.id, cause="the answer is empty"
            )
        passes = "card" in record.answer
        said = "It says card." if passes else "It says no card."
        return Verdict(
            outcome="pass" if passes else "fail",
            score=0.9 if passes else 0.2,
            explanation=said,
            judge_id=self.id,
            in_scope=True,
            declined=not passes,
        )


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of an MLflow database, which takes seconds to make. MLflow points at it during this file's tests."""
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        yield folder
        mlflow.flush_trace_async_logging()


@pytest.fixture
def experiment(database: Path, request: pytest.FixtureRequest) -> str:
    """A new experiment, the active one."""
    made = mlflow.create_experiment(request.node.name, artifact_location=(database / "artifacts").as_uri())
    return str(mlflow.set_experiment(experiment_id=made).experiment_id)


def trace(question: str, answer: str) -> str:
    with mlflow.start_span("ask") as span:
        span.set_inputs({"question": question})
        span.set_outputs(answer)
    mlflow.flush_trace_async_logging()
    return span.trace_id


def assessments(trace_id: str) -> list[Feedback]:
    found = mlflow.get_trace(trace_id)
    assert found is not None
    return found.info.assessments


def test_verdicts_attach_to_traces_as_assessments(experiment: str) -> None:
    answers = ["In the card menu.", "Ask your bank.", ""]
    traces = [trace("Where do I freeze it?", answer) for answer in answers]
    judge = WordJudge()
    log_verdicts(traces, judge.judge([Record(question="Where do I freeze it?", answer=answer) for answer in answers]))
    (passes,), (fails,), (unjudged,) = (assessments(trace_id) for trace_id in traces)
    assert (passes.name, passes.value, passes.rationale) == ("passes", "yes", "It says card.")
    assert (passes.source.source_type, passes.source.source_id) == ("CODE", "local-word")
    assert {"score": "0.9", "in_scope": "True", "declined": "False"}.items() <= passes.metadata.items()
    assert (fails.value, fails.error) == ("no", None)
    assert unjudged.value is None
    assert (unjudged.error.error_code, unjudged.error.error_message) == ("UNJUDGED", "the answer is empty")


def test_any_judge_but_the_local_one_is_an_llm_to_mlflow(experiment: str) -> None:
    trace_id = trace("q", "a card")
    log_verdicts([trace_id], WordJudge("panel-majority-1").judge([Record(question="q", answer="a card")]), name="panel")
    (assessment,) = assessments(trace_id)
    assert (assessment.name, assessment.source.source_type) == ("panel", "LLM_JUDGE")


def test_the_documentations_snippet_runs(experiment: str) -> None:
    snippet = re.search(
        r"## In MLflow\n.*?```python\n(.*?)```", (ROOT / "docs" / "reference" / "judges.md").read_text(), re.DOTALL
    )
    assert snippet
    records = [Record(question="Where do I freeze it?", answer="In the card menu.")]
    names: dict[str, Any] = {"judge": WordJudge(), "records": records, "trace_ids": [trace("q", "a card")]}
    exec(snippet[1], names)  # noqa: S102
    (assessment,) = assessments(names["trace_ids"][0])
    assert assessment.value == "yes"
    assert names["result"].metrics["passes/mean"] == 1.0


def test_a_trace_that_is_not_there_is_a_user_error(experiment: str) -> None:
    with pytest.raises(UserError, match="the verdict on trace tr-1234 cannot be attached"):
        log_verdicts(["tr-1234"], [Verdict(outcome="pass", score=1.0, explanation="", judge_id="judge")])
    with pytest.raises(ValueError, match="shorter"):
        log_verdicts(["tr-1234"], [])


def test_a_judge_scores_in_mlflows_evaluation(experiment: str) -> None:
    judge = WordJudge()
    rows: list[dict[str, Any]] = [
        {"inputs": {"question": "q1"}, "outputs": "a card", "expectations": {"in_scope": True}},
        {"inputs": {"question": "q2"}, "outputs": "a loan"},
        {"inputs": {"question": "q3"}, "outputs": ""},
        {"inputs": {"prompt": "q4"}, "outputs": "a card"},
    ]
    result = mlflow.genai.evaluate(data=rows, scorers=[as_scorer(judge)])
    assert result.metrics["passes/mean"] == 0.5
    assert {record.question: record.in_scope for record in judge.seen} == {"q1": True, "q2": None, "q3": None}
    found = {t.info.request_preview: t.info.assessments for t in mlflow.search_traces([experiment], return_type="list")}
    said = {
        key: next(a for a in of_row if a.name == "passes")
        for key in ("q1", "q2", "q3", "q4")
        for preview, of_row in found.items()
        if key in preview
    }
    assert (said["q1"].value, said["q1"].rationale, said["q2"].value) == ("yes", "It says card.", "no")
    assert said["q3"].error.error_message == "the answer is empty"
    assert said["q4"].error.error_message.startswith("a row needs 'inputs' with a text 'question'")


def test_many_threads_share_a_judge_in_batches() -> None:
    judge = WordJudge(seconds=0.02)
    scorer = as_scorer(judge)
    values: dict[int, object] = {}
    together = threading.Barrier(40)

    def ask(i: int) -> None:
        together.wait()
        values[i] = scorer(inputs={"question": f"q{i}"}, outputs="a card" if i % 2 else "a loan").value

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values == {i: "yes" if i % 2 else "no" for i in range(40)}
    assert sum(judge.batches) == 40
    assert len(judge.batches) < 20


def test_a_judge_that_raises_is_no_verdict_and_may_be_asked_again() -> None:
    scorer = as_scorer(WordJudge())
    with pytest.raises(RuntimeError, match="broken"):
        scorer(inputs={"question": "break"}, outputs="a card")
    assert scorer(inputs={"question": "q"}, outputs="a card").value == "yes"


def test_a_row_may_hold_the_whole_conversation() -> None:
    judge, record = WordJudge(), bank_chat(answer="a card")
    score = as_scorer(judge)
    assert score(inputs={"messages": record.request}, outputs="a card").value == "yes"
    assert score(inputs={"question": record.question, "messages": record.request}, outputs="a card").value == "yes"
    assert score(inputs={"messages": [{"role": "user", "content": "Hi"}]}, outputs="a card").value == "yes"
    assert judge.seen == [record, record, Record(question="Hi", answer="a card")]
    for wrong in ({"messages": [{"role": "system", "content": "Hi"}]}, {"messages": "Hi"}, {"messages": [7]}, {}, None):
        assert "a row needs 'inputs'" in str(score(inputs=wrong, outputs="a card").error)


@pytest.mark.parametrize("judge_id", ["local-000000000000", "../judges", "local-0/../..", ""])
def test_only_a_judge_of_the_state_folder_is_a_scorer(tmp_path: Path, banking: Policy, judge_id: str) -> None:
    workspace = open_workspace(tmp_path)
    (workspace.judges / "local-123456789abc").mkdir(parents=True)
    with pytest.raises(UserError, match="there are: local-123456789abc"):
        kept_scorer(judge_id, banking, workspace=workspace)
