"""Metrics on judged records: what Evidently's tests find, and that older snapshots can be read."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from evaluations import judged
from evidently import Report
from evidently.core.report import Snapshot
from evidently.legacy.tests.base_test import TestStatus
from loopback import ROOT

from ontopic.reports import metrics
from ontopic.reports.frames import dataset_of, verdict_frame
from ontopic.reports.metrics import FailedRecords, GuardrailScore, RateValue
from ontopic.reports.page import widgets_of


def test_the_failed_table_stops_at_200():
    given = judged(230, 230)
    data = dataset_of(verdict_frame(given.records, given.verdicts), given.verdicts)
    (widget,) = widgets_of(Report([FailedRecords()]).run(data, None))
    page = str(widget.params)
    assert "the first 200 of 230" in str(widget.title)
    assert "Question 199?" in page and "Question 200?" not in page


# Of a snapshot that was written when `ontopic.reports` was one module, what there is of each of our types.
OLD_SNAPSHOT = """
{"report": {"items": []}, "name": "OnTopic window: banking", "timestamp": "2025-03-01T10:00:00",
 "metadata": {"status": "detected", "model_version": "1"}, "tags": ["version-1", "detected"],
 "widgets": [], "tests_widgets": [], "top_level_metrics": ["a", "b", "c", "d", "e", "f"],
 "metric_results": {
  "a": {"type": "evidently:metric_result_v2:RateValue", "display_name": "Guardrail score", "widget": [], "tests": [],
   "metric_value_location": {"param": {},
    "metric": {"metric_id": "a", "params": {"type": "evidently:metric_v2:GuardrailScore"}}},
   "value": 0.265, "low": 0.188, "high": 0.360, "n": 98, "note": ""},
  "b": {"type": "evidently:metric_result_v2:RateValue", "display_name": "Guardrail score, corrected", "widget": [],
   "metric_value_location": {"param": {}, "metric": {"metric_id": "b", "params": {
    "type": "evidently:metric_v2:GivenRate", "title": "Guardrail score, corrected", "order": 0,
    "tests": [{"type": "evidently:test_v2:Limit", "bound": "value", "relation": "at least", "limit": 0.85}]}}},
   "tests": [{"id": "limit", "name": "Guardrail score, corrected: score at least 0.85", "status": "FAIL",
    "description": "Guardrail score, corrected: the score 0.2073 is not at least 0.85",
    "metric_config": {"metric_id": "b", "params": {"type": "evidently:metric_v2:GivenRate"}},
    "test_config": {"type": "evidently:test_v2:Limit", "bound": "value", "relation": "at least", "limit": 0.85},
    "bound_test": {"type": "evidently:bound_test:SingleValueBoundTest", "metric_fingerprint": "b",
     "test": {"type": "evidently:test_v2:Limit", "bound": "value", "relation": "at least", "limit": 0.85}}}],
   "value": 0.207, "low": 0.108, "high": 0.323, "n": 98, "note": ""},
  "c": {"type": "evidently:metric_result_v2:RateValue", "display_name": "Over-refusal", "widget": [], "tests": [],
   "metric_value_location": {"param": {},
    "metric": {"metric_id": "c", "params": {"type": "evidently:metric_v2:OverRefusal"}}},
   "value": 0.054, "low": 0.015, "high": 0.177, "n": 37, "note": ""},
  "d": {"type": "evidently:metric_result_v2:RateValue", "display_name": "Leak", "widget": [], "tests": [],
   "metric_value_location": {"param": {}, "metric": {"metric_id": "d", "params": {"type": "evidently:metric_v2:Leak"}}},
   "value": 0.935, "low": 0.846, "high": 0.975, "n": 62, "note": ""},
  "e": {"type": "evidently:metric_result_v2:SingleValue", "display_name": "Unjudged records", "widget": [],
   "tests": [], "metric_value_location": {"param": {},
    "metric": {"metric_id": "e", "params": {"type": "evidently:metric_v2:UnjudgedRecords"}}}, "value": 2},
  "f": {"type": "evidently:metric_result_v2:SingleValue", "display_name": "Failed records", "widget": [], "tests": [],
   "metric_value_location": {"param": {},
    "metric": {"metric_id": "f", "params": {"type": "evidently:metric_v2:FailedRecords"}}}, "value": 72}}}
"""


def test_a_snapshot_of_an_older_state_folder_loads_and_shows() -> None:
    snapshot = Snapshot.loads(OLD_SNAPSHOT)
    values = {value.display_name: value for value in snapshot.metric_results.values()}
    score = values["Guardrail score, corrected"]
    assert isinstance(score, RateValue) and (score.low, score.n) == (0.108, 98)
    (outcome,) = snapshot.tests_results
    assert (outcome.name, outcome.status) == ("Guardrail score, corrected: score at least 0.85", TestStatus.FAIL)
    assert json.loads(snapshot.to_snapshot_model().json())["name"] == "OnTopic window: banking"


def test_types_are_stored_under_names_that_older_snapshots_have() -> None:
    stored = json.loads(OLD_SNAPSHOT)["metric_results"]
    ours = {value["type"] for value in stored.values() if "RateValue" in value["type"]}
    ours |= {value["metric_value_location"]["metric"]["params"]["type"] for value in stored.values()}
    ours |= {test["test_config"]["type"] for value in stored.values() for test in value["tests"]}
    names = "FailedRecords GivenRate GuardrailScore Leak Limit OverRefusal RateValue UnjudgedRecords"
    assert {getattr(metrics, name).__fields__["type"].default for name in names.split()} == ours


def test_given_reference_data_a_share_has_a_card_for_each() -> None:
    current, reference = judged(20, 10), judged(20, 5)
    snapshot = Report([GuardrailScore()]).run(
        dataset_of(verdict_frame(current.records, current.verdicts), current.verdicts),
        dataset_of(verdict_frame(reference.records, reference.verdicts), reference.verdicts),
    )
    (widget,) = snapshot.to_snapshot_model().widgets
    assert [card["value"] for card in widget.params["counters"]] == ["0.750", "0.500"]


def test_evidently_sends_nothing_where_no_state_folder_was_opened() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DO_NOT_TRACK"}
    code = "import ontopic.judges.bridges.evidently, evidently.telemetry as t; assert not t.event_logger.is_enabled()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
