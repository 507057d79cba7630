"""Closing a window: its missing verdicts, its result, its page, the dashboard and the alerts it raises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from ontopic.config.policy import Policy
from ontopic.config.settings import AlertEvent
from ontopic.data.labelled import load_questions
from ontopic.judges.cards.card import JudgeCard
from ontopic.judges.cards.traffic_card import TrafficLabels
from ontopic.judges.judge import Judge
from ontopic.models.sentence_encoder import load_sentence_encoder
from ontopic.monitoring.alerts import Alert, Alerts
from ontopic.monitoring.dashboard import Dashboard
from ontopic.monitoring.drift import topic_drift
from ontopic.monitoring.standing import limits_of
from ontopic.monitoring.topics import Topics
from ontopic.monitoring.window import LOW, Window, WindowResult, window_result
from ontopic.monitoring.window_page import window_report
from ontopic.monitoring.windows import WindowStore
from ontopic.progress import progress
from ontopic.records import Judged, Record
from ontopic.registry.promotions import open_registry
from ontopic.reports.page import page_name
from ontopic.state.workspace import Workspace

_JUDGED_AT_ONCE = 256  # a kill loses at most so many verdicts
_SHOWN = 50  # windows on the dashboard


def judge_records(windows: WindowStore, records: Sequence[Record], *, judge: Judge, what: str) -> Judged:
    """Verdicts on records that are in windows: only those that this judge has not given yet are asked for.

    They are kept every few hundred records, so a kill loses little. One that is ``unjudged`` is asked for again.

    Args:
        what: the records are, as it stands beside the progress bar.
    """
    kept = windows.verdicts([record.id for record in records], judge.id)
    missing = [r for r in records if r.id not in kept or kept[r.id].outcome == "unjudged"]
    with progress(f"verdicts on {what}", len(missing), unit="records") as advance:
        for start in range(0, len(missing), _JUDGED_AT_ONCE):
            part = missing[start : start + _JUDGED_AT_ONCE]
            verdicts = judge.judge(part, advance)
            new = {record.id: verdict for record, verdict in zip(part, verdicts, strict=True)}
            windows.keep_verdicts(new, judge.id)
            kept |= new
    return Judged(records=list(records), verdicts=[kept[record.id] for record in records])


@dataclass(frozen=True)
class Closed:
    """A window that was closed, and the alerts that it raised."""

    window: Window
    alerts: list[Alert]


def concerns(window: Window, most_unjudged: float) -> dict[AlertEvent, str]:
    """The events that a closed window is, each with a sentence that says why.

    Args:
        most_unjudged: the policy's.
    """
    result = window.result
    if result is None:
        return {}
    page = Path(result.report).name  # its folder is this machine's, and the alert may be read on another
    score = f"{result.named_score}, the threshold {result.threshold:g}; {page}"
    found: dict[AlertEvent, str] = {}
    if result.status in LOW:
        found["suspected"] = score
    if result.status == "detected":
        found["detected"] = score
    if result.unjudged_share > most_unjudged:
        found["unjudged"] = f"{result.unjudged_share:.0%} of the records are unjudged; {page}"
    if result.is_misfit:
        found["misfit"] = f"{result.unknown_because}; {page}"
    return found


class Closer:
    """Closes windows of one policy's traffic.

    MLflow must be open on the policy's registered model, for the champion's promotion on the dashboard.
    """

    def __init__(self, policy: Policy, workspace: Workspace, *, windows: WindowStore, alerts: Alerts) -> None:
        self.policy, self.windows = policy, windows
        self._workspace, self._alerts = workspace, alerts

    @cached_property
    def _topics(self) -> Topics:
        questions = load_questions(self.policy.questions, split="calibration")
        return Topics([question.question for question in questions], load_sentence_encoder())

    @cached_property
    def _dashboard(self) -> Dashboard:
        return Dashboard(self._workspace.evidently, self.policy)

    def close(
        self, window: Window, judged: Judged, *, card: JudgeCard, now: datetime, labels: TrafficLabels | None = None
    ) -> Closed:
        """Close a window: write its result, its page and its snapshot for the dashboard, and note its events.

        One that is closed already gets its result anew, and raises nothing where its status is as it was.

        Args:
            judged: its sampled records, with the verdicts of the card's judge.
            card: of the judge, on templates.
            labels: of the policy's traffic, with that judge's verdicts; without them the score is not corrected.
        """
        result = window_result(
            judged,
            card,
            limits=limits_of(self.policy),
            counts=self.windows.counts(window),
            labels=labels,
            drift=topic_drift([record.question for record in judged.records], self._topics),
            revision=window.revision,
        )
        version, at = window.model_version or "unknown", f"{window.start:%Y%m%dT%H%M%S}"
        name = page_name("window", self.policy.registered_model, "version", version, at, str(window.id))
        page = self._workspace.reports / name
        snapshot = window_report(
            self.policy, window, result=result, judged=judged, promoted=self.windows.is_first(window), out=page
        )
        self._dashboard.add(snapshot, window)
        closed = self.windows.close_window(window, result.model_copy(update={"report": str(page)}), now=now)
        again = window.state in ("closed", "final") and window.result and window.result.status == result.status
        return Closed(window=closed, alerts=[] if again else self._note(closed, result, at=now))

    def _note(self, window: Window, result: WindowResult, *, at: datetime) -> list[Alert]:
        events = concerns(window, self.policy.most_unjudged)
        if result.status == "ok" and not events:
            self._alerts.recovered(window.label, at=at)
        return [
            alert for kind, text in events.items() for alert in self._alerts.event(kind, window.label, at=at, text=text)
        ]

    def show(self) -> None:
        """Draw the dashboard with the windows that are closed now."""
        promotions = open_registry(self._workspace, self.policy.registered_model).promotions()
        self._dashboard.show(self.windows.closed(_SHOWN), promotions[-1].at if promotions else None)
