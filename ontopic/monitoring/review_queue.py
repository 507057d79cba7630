"""People label in MLflow: a review queue of records, and the labels that were given there.

A queue holds the records of one way of drawing them, as the label store keeps these apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ontopic.config.policy import Policy
from ontopic.data.given_labels import GivenLabel
from ontopic.data.labels import Draw
from ontopic.records import Record
from ontopic.registry.logged_traces import log_traces

if TYPE_CHECKING:
    from mlflow.entities import Assessment, Trace
    from mlflow.genai.review_queues import ReviewQueue, ReviewQueueItem

RIGHT, SCOPE, BETTER = "answer is right", "question is in scope", "better answer"
"""What a reviewer is asked, as MLflow shows it; the assessments are called so too."""
_PAGE = 100
_MOST_INSTRUCTION = 1000


class InQueue(BaseModel):
    """What is in a queue.

    Attributes:
        labelled: what reviewers have completed, as rows of a file of labels.
        completed: the ids of their traces, and of what they completed without a label.
        waiting: how many records wait for a reviewer.
    """

    model_config = ConfigDict(frozen=True)
    labelled: list[GivenLabel]
    completed: list[str]
    waiting: int


class LabelQueue:
    """MLflow's review queue of one way of drawing records. MLflow must be open on the experiment.

    Args:
        experiment: its id.
        uri: MLflow's tracking URI.
    """

    def __init__(self, policy: Policy, experiment: str, *, by: Draw, uri: str) -> None:
        self.name = f"OnTopic labels, {by}"
        self._policy, self._experiment, self._uri = policy, experiment, uri

    def read(self) -> InQueue:
        """The labels that were given, the earliest first, and how many records wait."""
        items = [item for queue in self._queues() for item in _items(queue)]
        done = [item.item_id for item in items if item.status == "complete"]
        waiting = sum(item.status == "pending" for item in items)
        labelled = [row for trace in _traces(done) if (row := _label(trace)) is not None]
        return InQueue(labelled=labelled, completed=done, waiting=waiting)

    def remove(self, completed: Sequence[str]) -> None:
        """Take traces out of the queue whose labels are kept: what is labelled anew elsewhere then stays so. What was
        said of them stays with the traces."""
        from mlflow.genai.review_queues import remove_items_from_review_queue

        for queue in self._queues() if completed else ():
            remove_items_from_review_queue(queue.queue_id, item_ids=list(completed))

    def unseen(self, records: Sequence[Record]) -> list[Record]:
        """Those of the records that are in no queue of this name yet."""
        from ontopic.traffic.traces import trace_id

        known = {item.item_id for queue in self._queues() for item in _items(queue)}
        return [record for record in records if trace_id(record.id) not in known]

    def add(self, records: Sequence[Record]) -> None:
        """Let records wait for a reviewer, logged as traces where they are none yet."""
        from mlflow.genai.review_queues import add_items_to_review_queue, create_review_queue

        from ontopic.traffic.traces import as_trace

        if not records:
            return
        queues = self._queues()
        queue = (
            queues[0]
            if queues
            else create_review_queue(
                self.name, queue_type="custom", schema_ids=self._questions(), experiment_id=self._experiment
            )
        )
        traces = [as_trace(record, experiment=self._experiment) for record in records]
        log_traces(traces, self._experiment, uri=self._uri)
        add_items_to_review_queue(queue.queue_id, item_ids=[trace.info.trace_id for trace in traces])

    def _queues(self) -> list[ReviewQueue]:
        """The queue, where there is one."""
        from mlflow.genai.review_queues import list_review_queues

        found, token = [], None
        while True:
            page = list_review_queues(experiment_id=self._experiment, page_token=token)
            found += [queue for queue in page if queue.name == self.name]
            if not (token := page.token):
                return found

    def _questions(self) -> list[str]:
        """The ids of what reviewers are asked, which is made where it is missing."""
        from mlflow.genai import label_schemas as schemas

        known = {each.name: each.schema_id for each in schemas.list_label_schemas(experiment_id=self._experiment)}
        policy = self._policy
        asked: dict[str, dict[str, Any]] = {
            RIGHT: {
                "type": "feedback",
                "input": schemas.InputPassFail("Right", "Wrong"),
                "instruction": f"{policy.definition} To anything else the right answer is: {policy.refusal}",
                "enable_comment": True,
            },
            SCOPE: {
                "type": "feedback",
                "input": schemas.InputPassFail("In scope", "Out of scope"),
                "instruction": policy.definition,
            },
            BETTER: {
                "type": "expectation",
                "input": schemas.InputText(),
                "instruction": "Where the answer is wrong: the answer that you would have given. May stay empty.",
            },
        }
        for name, question in asked.items():
            question["instruction"] = question["instruction"][:_MOST_INSTRUCTION]
            if name not in known:
                made = schemas.create_label_schema(name, experiment_id=self._experiment, **question)
                known[name] = made.schema_id
        return [str(known[name]) for name in asked]


def _items(queue: ReviewQueue) -> Iterator[ReviewQueueItem]:
    from mlflow.genai.review_queues import list_review_queue_items

    token = None
    while True:
        page = list_review_queue_items(queue.queue_id, max_results=_PAGE, page_token=token)
        yield from page
        if not (token := page.token):
            return


def _traces(ids: Sequence[str]) -> Iterator[Trace]:
    """Those that are there."""
    from mlflow.tracing.client import TracingClient

    client = TracingClient()
    for start in range(0, len(ids), _PAGE):
        yield from client.batch_get_traces(list(ids[start : start + _PAGE]))


def _label(trace: Trace) -> GivenLabel | None:
    """A reviewer's label; ``None`` where there is none, or the trace is not of a record."""
    from ontopic.traffic.traces import from_trace

    said: dict[str, Assessment] = {}
    for each in sorted(trace.info.assessments, key=lambda each: each.last_update_time_ms or 0):
        if each.source.source_type == "HUMAN" and each.valid is not False:
            said[each.name] = each
    right, scope, better = (said.get(name) for name in (RIGHT, SCOPE, BETTER))
    if right is None or right.feedback is None or not isinstance(right.feedback.value, bool):
        return None
    try:
        fields = from_trace(trace.to_dict())
        return GivenLabel.model_validate(
            {
                **{name: fields.get(name) for name in ("question", "answer", "model_version", "asked_at")},
                "messages": fields.get("messages") or (),
                "record_id": fields.get("id", ""),
                "label": "pass" if right.feedback.value else "fail",
                "in_scope": scope.feedback.value if scope is not None and scope.feedback is not None else None,
                "why": right.rationale or "",
                "correction": str(better.expectation.value or "") if better and better.expectation else "",
            }
        )
    except (ValueError, ValidationError):
        return None
