"""Served traffic in MLflow: a sample of each closed window as traces, with the verdicts and what people said.

It is logged from the stores after a window has closed, so no answer waits for MLflow. What is logged already is known
by its trace; what MLflow did not take is tried again after the next window.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ontopic.monitoring.window import Window
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Feedback, Record, Verdict
from ontopic.registry.logged_traces import are_logged, assessed, log_traces
from ontopic.registry.mlflow_client import impatience
from ontopic.traffic.store import TrafficStore

if TYPE_CHECKING:
    from mlflow.entities import Assessment, Trace

SAMPLE = 50
"""At most so many records of a window are logged, drawn at random; and as many more that people said something of."""
_WINDOWS = 10  # the newest, among which those that are not logged yet are sought


def log_windows(
    windows: WindowStore, traffic: TrafficStore, *, experiment: str, uri: str, tell: Callable[[str], object]
) -> int:
    """Log what is not logged yet of the newest closed windows.

    Args:
        experiment: its id.
        uri: MLflow's tracking URI.
        tell: told in a line where MLflow does not take it, which is no failure of the caller's.

    Returns:
        How many records were logged.
    """
    from mlflow.exceptions import MlflowException

    logged = 0
    try:
        with impatience():
            for window in windows.closed(_WINDOWS):
                traces = _traces(window, windows, traffic=traffic, experiment=experiment)
                if not are_logged(traces, uri=uri):
                    log_traces(traces, experiment, uri=uri)
                    logged += len(traces)
    except (MlflowException, NotImplementedError, OSError) as error:  # the second: a server of an older release
        why = str(error).partition("\n")[0][:200]
        tell(f"MLflow takes no traces of the traffic now; they are logged after the next window ({why})")
    return logged


def _traces(window: Window, windows: WindowStore, *, traffic: TrafficStore, experiment: str) -> list[Trace]:
    from ontopic.traffic.traces import as_trace

    judged = windows.judged([window], traffic)
    verdicts = {record.id: verdict for record, verdict in zip(judged.records, judged.verdicts, strict=True)}
    said: dict[str, list[Feedback]] = {}
    for each in traffic.feedback(list(verdicts)):
        said.setdefault(each.record_id, []).append(each)
    traces = []
    for record, drawn in _drawn(judged.records, said):
        tags = {"window": str(window.id), "drawn": drawn, "outcome": verdicts[record.id].outcome}
        trace = as_trace(record, experiment=experiment, tags=tags)
        traces.append(assessed(trace, _assessments(verdicts[record.id], said.get(record.id, []))))
    return traces


def _drawn(records: Sequence[Record], said: dict[str, list[Feedback]]) -> list[tuple[Record, str]]:
    """The sample, and after it what people said something of, each with how it was drawn."""
    shuffled = sorted(records, key=lambda record: hashlib.sha256(record.id.encode()).digest())
    others = [record for record in shuffled[SAMPLE:] if record.id in said]
    return [*((each, "random") for each in shuffled[:SAMPLE]), *((each, "feedback") for each in others[:SAMPLE])]


def _assessments(verdict: Verdict, said: Sequence[Feedback]) -> list[Assessment]:
    """The verdict, and each person's thumb and correction."""
    from mlflow.entities import AssessmentSource, AssessmentSourceType, Expectation
    from mlflow.entities import Feedback as Said

    from ontopic.judges.bridges.mlflow import feedback

    found: list[Assessment] = [feedback(verdict)]
    for each in said:
        source = AssessmentSource(AssessmentSourceType.HUMAN, each.by or "a user")
        found.append(Said("liked", value=each.thumb == "up", rationale=each.comment or None, source=source))
        if each.correction:
            found.append(Expectation("expected_response", each.correction, source=source))
    return found
