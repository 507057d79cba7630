"""Closing a window: its missing verdicts, its result, its page, the dashboard and the alerts it raises."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from ontopic.config.alert_settings import MonitoringLimits
from ontopic.config.policy import Policy
from ontopic.data.labelled import load_questions
from ontopic.judges.cards.card import JudgeCard
from ontopic.judges.cards.traffic_card import TrafficLabels
from ontopic.judges.judge import Judge
from ontopic.models.sentence_encoder import load_sentence_encoder
from ontopic.monitoring.alerts import Alert, Alerts
from ontopic.monitoring.chart import Chart, Levels, carried, levels_of, outcomes_of
from ontopic.monitoring.concerns import concerns, over
from ontopic.monitoring.dashboard import Dashboard
from ontopic.monitoring.drift import past_of, topic_drift
from ontopic.monitoring.held_shares import SLOW_SHARE, HeldShare, held, level_of, shares_of
from ontopic.monitoring.languages import unjudged_by_language
from ontopic.monitoring.side_score import SideScore
from ontopic.monitoring.side_verdicts import KeptVerdicts
from ontopic.monitoring.spending import DAY, JudgeCost
from ontopic.monitoring.standing import limits_of
from ontopic.monitoring.thumbs import Thumbs, liked_of, thumbs_of
from ontopic.monitoring.topics import Topics
from ontopic.monitoring.totals import Counted, Totals, add_up
from ontopic.monitoring.window import Drift, Window, WindowResult, status_of, window_result
from ontopic.monitoring.window_page import window_report
from ontopic.monitoring.window_snapshot import window_snapshot
from ontopic.monitoring.windows import WindowStore
from ontopic.progress import Advance, progress
from ontopic.records import EARLIEST, Judged, Record, Verdict
from ontopic.registry.promotions import open_registry
from ontopic.reports.page_name import page_name
from ontopic.state.workspace import Workspace
from ontopic.statistics.rates import Rate
from ontopic.traffic.store import TrafficStore

_JUDGED_AT_ONCE = 256  # a kill loses at most so many verdicts
_SHOWN = 50  # windows on the dashboard
_DRAWN = 20  # windows before it on a window's page
_MARGIN = timedelta(minutes=1)  # clocks differ, and a thumb can be read a while after it is given
_EARLIER = 50  # windows that a language's records are sought in, where this one has few


def judge_records(kept_in: KeptVerdicts, records: Sequence[Record], *, judge: Judge, what: str) -> Judged:
    """Verdicts on records that are in windows: only those that this judge has not given yet are asked for.

    They are kept every few hundred records, so a kill loses little. One that is ``unjudged`` is asked for again.

    Args:
        kept_in: the windows, or what they keep of the judges beside the one that gates.
        what: the records are, as it stands beside the progress bar.
    """
    kept = kept_in.verdicts([record.id for record in records], judge.id)
    missing = [record for record in records if _is_missing(record, kept)]
    with progress(f"verdicts on {what}", len(missing), unit="records") as advance:
        return _judged(kept_in, records, kept=kept, judge=judge, advance=advance)


def judge_pages(
    kept_in: KeptVerdicts, pages: Iterable[Sequence[Record]], *, judge: Judge, what: str, n: int
) -> Iterator[Judged]:
    """As ``judge_records``, a page at a time, for more records than fit into memory.

    Args:
        n: about how many there are, for the progress.
    """
    with progress(f"verdicts on {what}", n, unit="records") as advance:
        for records in pages:
            kept = kept_in.verdicts([record.id for record in records], judge.id)
            advance(sum(not _is_missing(record, kept) for record in records))
            yield _judged(kept_in, records, kept=kept, judge=judge, advance=advance)


def _is_missing(record: Record, kept: Mapping[str, Verdict]) -> bool:
    return record.id not in kept or kept[record.id].outcome == "unjudged"


def _judged(
    kept_in: KeptVerdicts, records: Sequence[Record], *, kept: dict[str, Verdict], judge: Judge, advance: Advance
) -> Judged:
    missing = [record for record in records if _is_missing(record, kept)]
    for start in range(0, len(missing), _JUDGED_AT_ONCE):
        part = missing[start : start + _JUDGED_AT_ONCE]
        with kept_in.spending.of(judge):
            verdicts = judge.judge(part, advance)
        new = {record.id: verdict for record, verdict in zip(part, verdicts, strict=True)}
        kept_in.keep_verdicts(new, judge.id)
        kept |= new
    return Judged(records=list(records), verdicts=[kept[record.id] for record in records])


@dataclass(frozen=True)
class Closed:
    """A window that was closed, and the alerts that it raised."""

    window: Window
    alerts: list[Alert]


def _chart_of(window: Window | None) -> Chart | None:
    return window.result.chart if window is not None and window.result is not None else None


class Closer:
    """Closes windows of one policy's traffic.

    MLflow must be open on the policy's registered model, for the champion's promotion on the dashboard.

    Args:
        traffic: whose thumbs enter the windows; without it none do.
        limits: that windows are held against besides the policy's.
    """

    def __init__(
        self,
        policy: Policy,
        workspace: Workspace,
        *,
        windows: WindowStore,
        alerts: Alerts,
        traffic: TrafficStore | None = None,
        limits: MonitoringLimits = MonitoringLimits(),
    ) -> None:
        self.policy, self.windows, self._traffic, self._limits = policy, windows, traffic, limits
        self._workspace, self._alerts = workspace, alerts

    @cached_property
    def _topics(self) -> Topics:
        questions = load_questions(self.policy.questions, split="calibration")
        return Topics([question.question for question in questions], load_sentence_encoder())

    @cached_property
    def _dashboard(self) -> Dashboard:
        return Dashboard(self._workspace.evidently, self.policy)

    def close(
        self,
        window: Window,
        judged: Judged | Iterable[Judged],
        *,
        card: JudgeCard,
        now: datetime,
        labels: TrafficLabels | None = None,
    ) -> Closed:
        """Close a window: write its result, its page and its snapshot for the dashboard, and note its events.

        One that is closed already gets its result anew, and raises nothing where its status is as it was.

        Args:
            judged: its sampled records, with the verdicts of the card's judge; or pages of them, in the order of the
                questions, of which one at a time is in memory.
            card: of the judge, on templates.
            labels: of the policy's traffic, with that judge's verdicts; without them the score is not corrected.
        """
        promoted, since = self._starts(window)
        errors = labels.card(window.model_version) if labels else None
        levels = levels_of(self.policy.alert_threshold, errors, least_records=self.policy.least_records)
        chart = carried(self._chart_before(window), (), since=since, levels=levels)

        def follow(page: Judged) -> None:
            nonlocal chart
            chart = carried(chart, outcomes_of(page), since=since, levels=levels)

        totals = add_up(
            [judged] if isinstance(judged, Judged) else judged,
            labelled={label.record_id for label in labels.records} if labels else (),
            slow_after_s=self._limits.latency_s,
            each=follow,
        )
        result = window_result(
            totals,
            card,
            limits=limits_of(self.policy),
            counts=self.windows.counts(window),
            labels=labels,
            chart=chart,
            drift=self._drift(window, totals.kept, promoted=promoted),
            revision=window.revision,
        )
        more: dict[str, Any] = {
            **self._held(window, totals, since=promoted),
            "unjudged_languages": self._unjudged_languages(window, result),
            "thumbs": self._thumbs(window),
            "judge_cost": self._judge_cost(now),
        }
        result = self._drawn(window, result.model_copy(update=more), judged=totals.kept)
        drawn = window.model_copy(update={"result": result})
        again = window.state in ("closed", "final") and window.result and window.result.status == result.status
        # What follows from it comes first and may come twice: one that a killed process was closing is closed anew.
        alerts = [] if again else self._note(drawn, at=now)
        if chart != _chart_of(window):
            alerts += self._carry_on(drawn, levels, now=now)
        return Closed(window=self.windows.close_window(window, result, now=now), alerts=alerts)

    def _chart_before(self, window: Window) -> Chart | None:
        before = self.windows.earlier(window, 1)
        return _chart_of(before[0]) if before else None

    def _drawn(self, window: Window, result: WindowResult, *, judged: Judged) -> WindowResult:
        """The result with the path of its page, which is drawn, as is its snapshot for the dashboard."""
        version, at = window.model_version or "unknown", f"{window.start:%Y%m%dT%H%M%S}"
        name = page_name("window", self.policy.registered_model, "version", version, at, str(window.id))
        page = self._workspace.reports / name
        earlier = self.windows.earlier(window, _DRAWN)
        window_report(self.policy, window, result=result, judged=judged, earlier=earlier, out=page)
        first = self.windows.is_first(window)
        snapshot = window_snapshot(self.policy, window, result=result, judged=judged, promoted=first)
        self._dashboard.add(snapshot, window)
        return result.model_copy(update={"report": str(page)})

    def add_beside(self, window: Window, judged: Judged, *, scores: Sequence[SideScore]) -> Window:
        """Write what judges beside the one that gates say into a closed window's result, and draw its page anew.

        Args:
            judged: as ``close`` took it.
        """
        if window.result is None:
            return window
        result = window.result.model_copy(update={"beside": list(scores)})
        return self.windows.rewrite(window, self._drawn(window, result, judged=judged))

    def add_thumbs(self) -> list[Alert]:
        """Write the thumbs that were given since the last call into the windows that were closed before, whose pages
        are drawn anew; returns the alerts that this raises."""
        if self._traffic is None:
            return []
        now = datetime.now(UTC)
        seen = self.windows.thumbs_seen(now)
        alerts: list[Alert] = []
        for window in self.windows.holding(self._traffic.thumbed(seen - _MARGIN)) if seen else ():
            thumbs, result = self._thumbs(window), window.result
            if result is None or thumbs == result.thumbs:
                continue
            result = result.model_copy(update={"thumbs": thumbs})
            judged = self.windows.judged([window], self._traffic)
            if len(judged.records) == (result.described or result.sampled):  # else some is gone: the page would lose it
                result = self._drawn(window, result, judged=judged)
            window = self.windows.rewrite(window, result)
            text = concerns(window).get("disliked")
            alerts += self._alerts.event("disliked", window.label, at=now, text=text) if text else []
        return alerts

    def liked(self, records: Sequence[Record]) -> Rate | None:
        """The share of the thumbs on these records that are up; ``None`` where none are read."""
        return None if self._traffic is None else liked_of(self._traffic, [[record.id for record in records]])

    def _thumbs(self, window: Window) -> Thumbs | None:
        if self._traffic is None:
            return None
        promoted, _ = self._starts(window)
        return thumbs_of(
            self._traffic,
            self.windows.id_pages(window),
            version=window.model_version,
            since=promoted,
            until=window.end,
            least=self.policy.least_liked,
        )

    def _drift(self, window: Window, judged: Judged, *, promoted: datetime) -> Drift | None:
        past = past_of(window, self.windows, promoted=promoted)
        return topic_drift(
            [record.question for record in judged.records], self._topics, past=past, least=self._limits.drift
        )

    def _starts(self, window: Window) -> tuple[datetime, datetime]:
        """From when on the records of a window's version count in it: since the promotion, and in the chart.

        The chart begins anew where something was done about its alarm. What came after the window's end is no start, so
        that an old window that is closed again is what it was. All that a version answered before its first promotion
        counts.
        """
        promotions = open_registry(self._workspace, self.policy.registered_model).promotions()
        again = [promotion.at for promotion in promotions if promotion.version == window.model_version][1:]
        restarted = self.windows.chart_restarted(window.model_version)
        promoted = max([EARLIEST, *(at for at in again if at <= window.end)])
        return promoted, restarted if restarted and promoted < restarted <= window.end else promoted

    def _unjudged_languages(self, window: Window, result: WindowResult) -> dict[str, Rate]:
        if not result.scores.unjudged:
            return {}
        before = [each.result for each in self.windows.earlier(window, _EARLIER) if each.result]
        return unjudged_by_language(
            result.languages, [each.languages for each in before if each.judge_id == result.judge_id]
        )

    def _held(self, window: Window, totals: Totals, *, since: datetime) -> dict[str, HeldShare]:
        """Over-refusal, leak and slow answers against their limits."""
        before = self.windows.earlier(window, _EARLIER, since=since)
        level = level_of(window.end - (before[0].end if before else window.start))
        judge_ids = {verdict.judge_id for verdict in totals.kept.verdicts}
        past = [each.result for each in before if each.result and each.result.judge_id in judge_ids]
        gate = self.policy.gate
        most = {"over_refusal": gate.over_refusal, "leak": gate.leak, "slow": SLOW_SHARE}
        shares = shares_of(totals.kept, slow_after_s=self._limits.latency_s)
        of_all = totals.shares | {"slow": Counted(totals.slow, totals.n)}
        return {
            name: held(
                *counted,
                most=most[name],
                level=level,
                before=[getattr(each, name) for each in past],
                of_all=of_all[name],
            )
            for name, counted in shares.items()
        }

    def _judge_cost(self, now: datetime) -> JudgeCost | None:
        cost = JudgeCost(day=self.windows.spending.since(now - DAY), most_usd=self._limits.judge_usd)
        return cost if cost.day.requests or cost.most_usd is not None else None

    def _carry_on(self, window: Window, levels: Levels | None, *, now: datetime) -> list[Alert]:
        """Carry a window's chart over those that end after it and were closed before; returns the alerts this raises.

        Their pages stay as they were drawn. Where what was judged in one is forgotten, it ends there.
        """
        alerts, chart = [], _chart_of(window)
        for later in self.windows.after(window):
            outcomes = self.windows.outcomes(later)
            if later.result is None or outcomes is None:
                break
            result, (_, since) = later.result, self._starts(later)
            chart = carried(chart, outcomes, since=since, levels=levels)
            status = status_of(result, result.threshold, chart=chart)
            later = self.windows.rewrite(later, result.model_copy(update={"chart": chart, "status": status}))
            if status == "detected" != result.status:
                alerts += self._note(later, at=now)
        return alerts

    def _note(self, window: Window, *, at: datetime) -> list[Alert]:
        events = concerns(window)
        self._alerts.recovered(window.label, at=at, over=over(window))
        return [
            alert for kind, text in events.items() for alert in self._alerts.event(kind, window.label, at=at, text=text)
        ]

    def show(self) -> None:
        """Draw the dashboard with the windows that are closed now."""
        promotions = open_registry(self._workspace, self.policy.registered_model).promotions()
        self._dashboard.show(self.windows.closed(_SHOWN), promotions[-1].at if promotions else None)
