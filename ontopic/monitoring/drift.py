"""Topic drift: whether other things are asked than the calibration set asks."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.core.report import Snapshot
from evidently.metrics import ValueDrift

from ontopic.monitoring.topics import Topics
from ontopic.monitoring.window import Drift

DRIFT_P = 0.01
_GROWN = 3


def topic_drift(questions: Sequence[str], topics: Topics) -> Drift | None:
    """Whether the questions' topics differ from the calibration set's: Evidently's chi-squared drift at 1 %.

    Returns:
        ``None`` where there is no question.
    """
    if not questions:
        return None
    found = topics.of(questions)
    snapshot = _drift_report(found, topics.reference)
    (value,) = [result.value for result in snapshot.metric_results.values()]
    before, after = Counter(topics.reference), Counter(found)
    shares = [(topic, before[topic] / len(topics.reference), after[topic] / len(found)) for topic in before]
    grown = sorted(shares, key=lambda row: row[1] - row[2])[:_GROWN]
    return Drift(score=float(value), detected=float(value) < DRIFT_P, grown=grown)


def _drift_report(topics: Sequence[str], reference: Sequence[str]) -> Snapshot:
    definition = DataDefinition(categorical_columns=["topic"])
    current, before = (
        Dataset.from_pandas(pd.DataFrame({"topic": list(column)}), definition) for column in (topics, reference)
    )
    report = Report([ValueDrift(column="topic", method="chisquare", threshold=DRIFT_P)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return report.run(current, before)
