"""Traffic that the loop asked for, cut into windows, and their guardrail scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ontopic.judges.cards.card import JudgeCard
from ontopic.records import Verdict
from ontopic.reports.metrics import monitoring_report
from ontopic.reports.verdict_frame import verdicts_of
from ontopic.statistics.correction import corrected
from ontopic.statistics.rates import Rate
from ontopic.statistics.scores import Scores, score


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
        low: the windows under the threshold.
        report: Evidently's page.
    """

    scores: Scores
    corrected: Rate
    windows: list[Window]
    low: list[Window]
    report: Path


def cut_windows(frame: pd.DataFrame, window_records: int) -> list[Window]:
    """Cut judged traffic, in the order it was asked, into windows of ``window_records``; the last may be shorter."""
    verdicts: Sequence[Verdict] = verdicts_of(frame)
    windows = []
    for number, start in enumerate(range(0, len(frame), window_records), start=1):
        first = frame["asked_at"].iloc[start]
        label = str(number) if pd.isna(first) else f"{number}: {first:%Y-%m-%d %H:%M:%S}"
        windows.append(Window(label=label, scores=score(verdicts[start : start + window_records])))
    return windows


def monitor(
    title: str, frame: pd.DataFrame, *, card: JudgeCard, window_records: int, threshold: float, report: Path
) -> Monitored:
    """Score judged traffic by window, write the report, and say which windows are under the threshold.

    Args:
        frame: judged traffic, as ``reports.verdict_frame`` gives it, in the order it was asked.
        card: of the judge, for the corrected score.
    """
    windows = cut_windows(frame, window_records)
    scores = score(verdicts_of(frame))
    right = corrected(scores.guardrail_score, card.sensitivity, specificity=card.specificity)
    outcomes = monitoring_report(
        title, frame, windows=[(w.label, w.scores) for w in windows], threshold=threshold, corrected=right, out=report
    )
    low = [window for window, outcome in zip(windows, outcomes, strict=True) if not outcome.passed]
    return Monitored(scores, right, windows, low, report)
