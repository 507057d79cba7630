"""Traces in MLflow with what was said of them: written in batches, and each once however often it is logged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import Assessment, Trace

_BATCH = 200  # spans that go in one request
_AT_ONCE = 8  # traces that are on their way to a server
_LOOKED_UP = 100  # traces that one request asks for
_MOST_RATIONALE = 2000


def log_traces(
    traces: Sequence[Trace], experiment: str, *, uri: str, advance: Callable[[int], object] | None = None
) -> None:
    """Log traces whose ids tell what they are of. One that is there already, and what was said of it, is replaced;
    what others said of it stays.

    Args:
        traces: each with its assessments, as ``assessed`` adds them.
        experiment: its id.
        uri: MLflow's tracking URI.
        advance: told how many more are logged.

    Raises:
        MlflowException: MLflow does not take them.
    """
    from mlflow.tracing.client import TracingClient

    client = TracingClient(uri)
    at_once = _AT_ONCE if uri.startswith(("http://", "https://")) else 1  # in a file, one waits for another
    for start in range(0, len(traces), _BATCH):
        part = traces[start : start + _BATCH]
        with ThreadPoolExecutor(at_once) as pool:
            # With all that is said of it in one transaction, where MLflow's own calls take one for each.
            list(pool.map(client.start_trace, [trace.info for trace in part]))
        client.log_spans(experiment, [span for trace in part for span in trace.data.spans])
        if advance is not None:
            advance(len(part))


def are_logged(traces: Sequence[Trace], *, uri: str) -> bool:
    """Whether all of these are there, with as much said of each as here."""
    from mlflow.tracing.client import TracingClient

    store = TracingClient(uri).store
    for start in range(0, len(traces), _LOOKED_UP):
        part = traces[start : start + _LOOKED_UP]
        found = store.batch_get_trace_infos([trace.info.trace_id for trace in part])
        said = {info.trace_id: {each.assessment_id for each in info.assessments} for info in found}
        if any(
            trace.info.trace_id not in said
            or not {each.assessment_id for each in trace.info.assessments} <= said[trace.info.trace_id]
            for trace in part
        ):
            return False
    return True


def assessed(trace: Trace, assessments: Sequence[Assessment]) -> Trace:
    """The trace with what was said of it, each with an id that follows from the trace, its name and its source."""
    for each in assessments:
        each.trace_id = trace.info.trace_id
        said = f"{each.trace_id} {each.name} {each.source.source_type} {each.source.source_id}"
        each.assessment_id = f"a-{hashlib.sha256(said.encode()).hexdigest()[:32]}"
        if each.rationale:
            each.rationale = each.rationale[:_MOST_RATIONALE]
    trace.info.assessments = [*trace.info.assessments, *assessments]
    return trace
