"""Windows of traffic, their guardrail scores, and the alerts that low ones raise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from ontopic.judges.card import JudgeCard
from ontopic.records import Verdict
from ontopic.reports import monitoring_report, verdicts_of
from ontopic.scores import Rate, Scores, corrected, score


@dataclass(frozen=True)
class Window:
    """The records of one stretch of traffic and their scores.

    Attributes:
        label: its number and, where known, the time of its first record.
    """

    label: str
    scores: Scores


@dataclass(frozen=True)
class Monitored:
    """What monitoring found.

    Attributes:
        scores: of all windows together.
        corrected: the guardrail score with the judge's error taken out.
        alerts: a sentence for each window under the threshold.
        report: Evidently's page.
    """

    scores: Scores
    corrected: Rate
    windows: list[Window]
    alerts: list[str]
    report: Path


def cut_windows(frame: pd.DataFrame, window_records: int) -> list[Window]:
    """Cut judged traffic, in the order it was asked, into windows of ``window_records``; the last may be shorter."""
    verdicts: Sequence[Verdict] = verdicts_of(frame)
    windows = []
    for number, start in enumerate(range(0, len(frame), window_records), start=1):
        first = frame["asked_at"].iloc[start]
        label = str(number) if pd.isna(first) else f"{number}: {first:%Y-%m-%d %H:%M:%S}"
        windows.append(Window(label, score(verdicts[start : start + window_records])))
    return windows


def monitor(
    title: str, frame: pd.DataFrame, card: JudgeCard, window_records: int, threshold: float, report: Path, alerts: Path
) -> Monitored:
    """Score judged traffic by window, write the report, and raise an alert for each window under the threshold.

    Args:
        frame: judged traffic, as ``reports.verdict_frame`` gives it, in the order it was asked.
        card: of the judge, for the corrected score.
        alerts: JSONL file that alerts are appended to.
    """
    windows = cut_windows(frame, window_records)
    scores = score(verdicts_of(frame))
    right = corrected(scores.guardrail_score, card.sensitivity, card.specificity)
    outcomes = monitoring_report(title, frame, [(w.label, w.scores) for w in windows], threshold, right, report)
    raised = [
        f"window {window.label}: guardrail score {window.scores.guardrail_score} is under {threshold:g}"
        for window, outcome in zip(windows, outcomes, strict=True)
        if not outcome.passed
    ]
    if raised:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with alerts.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"raised_at": now, "title": title, "alert": text}) + "\n" for text in raised)
    return Monitored(scores, right, windows, raised, report)


def scores_as_dict(scores: Scores) -> dict[str, object]:
    """Scores as plain numbers, for JSON: each share with value, low, high and n."""
    return {
        name: share if isinstance(share, int) else Rate(**share).as_dict() for name, share in asdict(scores).items()
    }
