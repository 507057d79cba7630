"""``label --from mlflow``: records wait in MLflow's review queue, and what people labelled there comes back, once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from loopback import ROOT
from mlflow.entities import AssessmentSource, Expectation, Feedback
from mlflow.genai import review_queues
from typer.testing import CliRunner, Result

import run
from ontopic.data.labels import LabelStore, TrafficLabel
from ontopic.monitoring.review_queue import BETTER, RIGHT, SCOPE
from ontopic.traffic.store import TrafficStore
from ontopic.traffic.traces import trace_id

NAME = "ontopic-banking"
ANN = AssessmentSource("HUMAN", "ann")


@pytest.fixture
def label(state_before: Path) -> Callable[..., Result]:
    """The command on a state folder that holds traffic; three records are to wait."""
    config = str(ROOT / "configs" / "local.yaml")
    arguments = ["label", "--from", "mlflow", "-n", "3", "--config", config, "--state", str(state_before)]
    return lambda *more: CliRunner().invoke(run.app, [*arguments, *more])


def waiting() -> list[str]:
    """The traces that wait in the one queue."""
    experiment = mlflow.get_experiment_by_name(NAME).experiment_id
    (queue,) = review_queues.list_review_queues(experiment_id=experiment)
    assert queue.name == "OnTopic labels, random"
    return [item.item_id for item in review_queues.list_review_queue_items(queue.queue_id, status="pending")]


def complete(trace: str, *, right: bool | None) -> None:
    """As a reviewer does on MLflow's page, who first thought otherwise."""
    if right is not None:
        mlflow.log_assessment(trace, Feedback(RIGHT, value=not right, source=ANN))
        mlflow.log_assessment(trace, Feedback(RIGHT, value=right, rationale="as it says", source=ANN))
        mlflow.log_assessment(trace, Feedback(SCOPE, value=True, source=ANN))
        mlflow.log_assessment(trace, Expectation(BETTER, "Look into the app.", source=ANN))
    (queue,) = review_queues.list_review_queues(experiment_id=mlflow.get_trace(trace).info.experiment_id)
    review_queues.set_review_queue_item_status(queue.queue_id, item_id=trace, status="complete", completed_by="ann")


def labels(state: Path) -> dict[str, TrafficLabel]:
    return {trace_id(row.record_id): row for row in LabelStore(state / "labels" / "banking.jsonl").labels()}


def test_labels_given_in_mlflow_are_taken_in_once_and_the_queue_is_filled_again(
    label: Callable[..., Result], state_before: Path
) -> None:
    before = set(labels(state_before))
    first = label()
    assert first.exit_code == 0, first.output
    assert "3 records wait in MLflow's review queue 'OnTopic labels, random', 3 of them" in first.output
    a, b, c = waiting()
    complete(a, right=False)
    complete(b, right=None)
    second = label()
    assert "1 labels were kept" in second.output and "3 records wait" in second.output and "2 of them" in second.output
    given = labels(state_before)
    assert set(given) - before == {a}
    assert (given[a].label, given[a].why, given[a].in_scope) == ("fail", "as it says", True)
    assert (given[a].correction, given[a].split, given[a].drawn) == ("Look into the app.", "calibration", "random")
    with TrafficStore(state_before / "traffic.db", NAME) as traffic:
        (record,) = traffic.records(ids=[given[a].record_id])
    assert (given[a].question, given[a].answer, given[a].model_version) == (
        record.question,
        record.answer,
        record.model_version,
    )
    assert c in waiting() and len(waiting()) == 3 and a not in waiting()
    third = label()
    assert "0 labels were kept, 0 were there already" in third.output and "0 of them" in third.output


def test_mistakes_are_one_sentence(label: Callable[..., Result]) -> None:
    for more, said in ((("--by", "discordant"), "exclude each other"), (("--records", "x"), "takes neither")):
        assert said in str(label(*more).exception)
