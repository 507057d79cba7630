"""Served traffic in MLflow: a sample of each window, once, with verdicts and what people said, if MLflow is there."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Trace

from ontopic.monitoring import logged_traffic
from ontopic.monitoring.logged_traffic import log_windows
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Feedback
from ontopic.registry.tracking import open_tracking
from ontopic.state.workspace import Workspace, open_workspace
from ontopic.traffic.store import TrafficStore
from ontopic.traffic.traces import trace_id

NAME = "ontopic-banking"
SAMPLE = 3


class Logged:
    """A state folder with windows that were closed, and its MLflow."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.experiment = workspace, open_tracking(workspace, NAME)
        self.windows, self.traffic = WindowStore(workspace.windows, NAME), TrafficStore(workspace.traffic, NAME)
        self.windows.adopt(NAME)
        self.traffic.adopt(NAME)
        self.said: list[str] = []

    def log(self, uri: str = "") -> int:
        uri = uri or self.workspace.mlflow_uri
        return log_windows(self.windows, self.traffic, experiment=self.experiment, uri=uri, tell=self.said.append)

    def traces(self) -> dict[str, Trace]:
        found = mlflow.search_traces(locations=[self.experiment], return_type="list")
        return {trace.info.trace_id: trace for trace in found}


@pytest.fixture
def logged(state_before: Path, monkeypatch: pytest.MonkeyPatch) -> Logged:
    monkeypatch.setattr(logged_traffic, "SAMPLE", SAMPLE)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # `open_tracking` leaves it
    return Logged(open_workspace(state_before))


def test_a_sample_of_each_window_is_logged_once_with_its_verdicts(logged: Logged) -> None:
    windows = logged.windows.closed(-1)
    n = logged.log()
    found = logged.traces()
    assert n == len(found) == sum(min(SAMPLE, len(logged.windows.judged([w], logged.traffic).records)) for w in windows)
    assert n > SAMPLE and logged.log() == 0 and len(logged.traces()) == n
    judged = logged.windows.judged(windows, logged.traffic)
    for record, verdict in zip(judged.records, judged.verdicts, strict=True):
        if (trace := found.get(trace_id(record.id))) is None:
            continue
        (said,) = trace.info.assessments
        assert (said.source.source_id, said.rationale or "") == (verdict.judge_id, verdict.explanation)
        assert trace.info.tags["model_version"] == record.model_version and trace.info.tags["drawn"] == "random"
        assert trace.data.spans[0].inputs == {"messages": record.request}
        assert trace.info.execution_duration == (round(record.latency_s * 1000) or None)


def test_what_people_said_is_logged_also_of_records_beside_the_sample(logged: Logged) -> None:
    logged.log()
    window = logged.windows.closed(-1)[-1]
    ids = [record.id for record in logged.windows.judged([window], logged.traffic).records]
    beside = next(each for each in ids if trace_id(each) not in logged.traces())
    given = Feedback(record_id=beside, thumb="down", comment="no", correction="Look into the app.", by="branch-7")
    logged.traffic.add_feedback(given)
    assert logged.log() == SAMPLE + 1 and logged.log() == 0
    trace = logged.traces()[trace_id(beside)]
    assert trace.info.tags["drawn"] == "feedback"
    said = {each.name: each for each in trace.info.assessments}
    assert said["liked"].feedback.value is False and said["liked"].rationale == "no"
    assert said["expected_response"].expectation.value == "Look into the app."
    assert said["liked"].source.source_type == "HUMAN" and said["liked"].source.source_id == "branch-7"


def test_an_mlflow_that_is_down_is_said_and_tried_again(logged: Logged) -> None:
    assert logged.log("http://127.0.0.1:9") == 0
    (line,) = logged.said
    assert line.startswith("MLflow takes no traces of the traffic now; they are logged after the next window")
    assert logged.log() > 0, logged.said
    assert len(logged.said) == 1
