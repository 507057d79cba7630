"""A window: one stretch of one model version's traffic, and what became of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from ontopic.data.by_language import LanguageScores, by_language
from ontopic.monitoring.chart import Chart
from ontopic.monitoring.conversations import Conversations, conversations_of
from ontopic.monitoring.held_shares import HeldShare
from ontopic.monitoring.side_score import SideScore
from ontopic.monitoring.spending import JudgeCost
from ontopic.monitoring.standing import MISFIT, Standing, WindowLimits, standing
from ontopic.monitoring.thumbs import Thumbs
from ontopic.monitoring.totals import Totals, add_up
from ontopic.records import Judged
from ontopic.statistics.rates import NumberOrNaN, Rate, rate
from ontopic.statistics.scores import Scores
from ontopic.visible import visible

if TYPE_CHECKING:
    from ontopic.config.settings import MonitoringSettings
    from ontopic.judges.cards.card import JudgeCard
    from ontopic.judges.cards.traffic_card import TrafficLabels

Status = Literal["ok", "suspected", "detected", "unknown"]
State = Literal["due", "closed", "reopened", "final"]
LOW: tuple[Status, ...] = ("suspected", "detected")


class Cut(BaseModel):
    """How traffic is cut.

    Attributes:
        length: of a window; ``None`` for windows of ``records`` records.
        records: of a window (a few more where several were asked at the same time), where ``length`` is ``None``.
        lateness: how long after its end a window closes.
        sampling_rate: the share of records that is judged, in (0, 1].
    """

    model_config = ConfigDict(frozen=True)
    length: timedelta | None
    records: int
    lateness: timedelta
    sampling_rate: float = 1.0


def cut_of(monitoring: MonitoringSettings) -> Cut:
    """How the settings have traffic cut."""
    return Cut(
        length=monitoring.window,
        records=monitoring.window_records,
        lateness=monitoring.lateness,
        sampling_rate=monitoring.sampling_rate,
    )


class Drift(BaseModel):
    """Whether other things are asked than in the champion's first healthy windows.

    Attributes:
        score: the p-value of the two-sample test; ``nan`` while too few questions are known for one.
        detected: whether it is under the level and the distance at least its limit.
        grown: the topics whose share grew most, with their share in those windows and now.
        distance: share of the questions that would have to be of another topic, in [0, 1] (total variation).
        least: the least distance that counts.
        level: of this look.
        n: questions that were compared: the window's, and of windows before it where it has few.
        reference: questions of the first healthy windows.
        topics: which topics these are: results of other topics are not compared.
        counts: how many of the window's own questions are of each topic.
    """

    model_config = ConfigDict(frozen=True)
    score: NumberOrNaN
    detected: bool
    grown: list[tuple[str, float, float]]
    distance: NumberOrNaN = math.nan
    least: float = 0.1
    level: float = 0.0
    n: int = 0
    reference: int = 0
    topics: str = ""
    counts: dict[str, int] = {}


class Counts(BaseModel):
    """How many records a window has: ``n`` that count, ``late`` among them, and ``too_late`` besides them."""

    model_config = ConfigDict(frozen=True)
    n: int
    late: int = 0
    too_late: int = 0


class WindowResult(Standing):
    """What became of a window when it closed, and what is known of its guardrail score.

    Attributes:
        status: ``ok``; ``suspected`` where the score is under the policy's threshold; ``detected`` where the alarm of
            the chart over all records is on; ``unknown`` where the score says too little, and ``unknown_because`` says
            why.
        n: records of the window; ``late``: those of them that reopened it; ``too_late``: those that came after that
            and count nowhere.
        most_unjudged: the share of unjudged records above which it is of concern.
        sampled: how many were given to the judge, and ``unjudged`` how many of these it could not judge.
        described: of how many of these, at random, the latency, topics, languages and conversations are; ``None`` in
            results of earlier releases, which are of all.
        width, width_unsampled: of the raw score's interval, and about what it would be if all were judged.
        latency_s: median and 95 % quantile, in seconds.
        revision: 1, or 2 where late records reopened the window.
        report: path of its page.
        languages: the scores by language, and ``unjudged_languages`` the shares that ``unjudged_by_language`` tells.
        conversations: what became of whole ones; ``None`` where there is none of two questions.
        chart: where the chart over all records of the version stands after this window; ``None`` in results of earlier
            releases, and by a judge that is no better than chance.
        beside: what the judges beside the one that gates say of the same records; they decide nothing.
        thumbs: what people thought of the answers, as far as was known when this was written; ``None`` where nobody
            gave one since the version's promotion.
        over_refusal, leak: as judged, held against the gate's limits; ``slow``: the share of answers that took longer
            than the limit, held against 5 %; ``None`` without a limit, and in results of earlier releases.
        judge_cost: ``None`` where no LLM was asked.
    """

    model_config = ConfigDict(frozen=True)
    status: Status
    scores: Scores
    score: Rate = Field(validation_alias=AliasChoices("score", "corrected"))  # as older results call it
    is_corrected: bool = True  # of an older result by a card of templates
    threshold: float
    most_unjudged: float = 0.05
    judge_id: str
    n: int
    late: int
    too_late: int
    sampled: int
    described: int | None = None
    width: float
    width_unsampled: float
    latency_s: tuple[float, float]
    prompt_tokens: int
    completion_tokens: int
    drift: Drift | None = None
    revision: int = 1
    report: str = ""
    conversations: Conversations | None = None
    chart: Chart | None = None
    languages: list[LanguageScores] = Field(default=[])
    unjudged_languages: dict[str, Rate] = Field(default={})
    beside: list[SideScore] = Field(default=[])
    thumbs: Thumbs | None = None
    over_refusal: HeldShare | None = None
    leak: HeldShare | None = None
    slow: HeldShare | None = None
    judge_cost: JudgeCost | None = None

    @property
    def is_misfit(self) -> bool:
        """Whether no true score explains what the judge said, by its card."""
        return self.fit_p_value is not None and self.fit_p_value < MISFIT

    @property
    def named_score(self) -> str:
        """The score with its interval, and whether it is corrected, as a part of a sentence."""
        return score_in_words(self.score, is_corrected=self.is_corrected)

    @property
    def unjudged_share(self) -> float:
        """Share of the sampled records that the judge could not judge."""
        return self.scores.unjudged / self.sampled if self.sampled else 0.0


class Window(BaseModel):
    """One stretch of one model version's traffic.

    Attributes:
        start, end: event times, in UTC; the end is the next window's start, or, where windows are cut by the number of
            records, the time of the last.
        state: ``due``, ``closed`` or ``reopened`` by late records, after which it is ``final``.
        result: ``None`` where it is due and not closed yet.
    """

    model_config = ConfigDict(frozen=True)
    id: int
    model_version: str
    start: datetime
    end: datetime
    state: State
    closed_at: datetime | None
    result: WindowResult | None

    @property
    def label(self) -> str:
        """Model version and start, as it stands in tables and alerts; two windows never have the same."""
        return f"version {visible(self.model_version) or 'unknown'}, {self.start.replace(tzinfo=None).isoformat(' ')}"

    @property
    def revision(self) -> int:
        """That of the result it gets when it closes now: 2 where late records have reopened it."""
        return 2 if self.state in ("reopened", "final") else 1


def score_in_words(score: Rate, *, is_corrected: bool) -> str:
    """``corrected guardrail score 0.91 [0.85, 0.95] (n=120)``, or ``uncorrected …``."""
    return f"{'corrected' if is_corrected else 'uncorrected'} guardrail score {score}"


def status_of(of: Standing, threshold: float, *, chart: Chart | None) -> Status:
    """Where traffic stands: the one rule of the loop and of ``watch``.

    ``detected`` is what the chart over all of the version's records says. Neither too few records nor a collapse that
    the card does not allow for keeps it from that; whatever else makes the score unknown does.
    """
    alarm = chart is not None and chart.alarm
    if of.unknown_because and not (of.allows_alarm and alarm):
        return "unknown"
    if alarm:
        return "detected"
    return "suspected" if of.score.value < threshold else "ok"


def window_result(
    judged: Judged | Totals,
    card: JudgeCard,
    *,
    limits: WindowLimits,
    counts: Counts,
    labels: TrafficLabels | None = None,
    chart: Chart | None = None,
    drift: Drift | None = None,
    revision: int = 1,
) -> WindowResult:
    """What becomes of a window with these verdicts.

    Args:
        judged: the sampled records of the window, with their verdicts, or what they add up to.
        card: of the judge that gave them, on templates.
        counts: of all its records.
        labels: of the policy's traffic, which say how the judge errs there.
        chart: after its records.
    """
    if isinstance(judged, Judged):
        ids = [label.record_id for label in labels.records] if labels else []
        judged = add_up([judged], labelled=ids, most=len(judged.records))
    kept, scores = judged.kept, judged.scores
    raw = scores.guardrail_score
    version = kept.records[0].model_version if kept.records else ""
    of = standing(judged, card, limits=limits, labels=labels, version=version)
    unsampled = rate(round(raw.value * counts.n), counts.n) if raw.n else raw
    latencies = sorted(record.latency_s for record in kept.records)
    return WindowResult(
        status=status_of(of, limits.threshold, chart=chart),
        scores=scores,
        **dict(of),
        threshold=limits.threshold,
        most_unjudged=limits.most_unjudged,
        judge_id=kept.verdicts[0].judge_id if kept.verdicts else card.judge_id,
        n=counts.n,
        late=counts.late,
        too_late=counts.too_late,
        sampled=judged.n,
        described=len(kept.records),
        width=raw.high - raw.low,
        width_unsampled=unsampled.high - unsampled.low,
        latency_s=(_quantile(latencies, 0.5), _quantile(latencies, 0.95)),
        prompt_tokens=judged.prompt_tokens,
        completion_tokens=judged.completion_tokens,
        drift=drift,
        conversations=conversations_of(kept),
        chart=chart,
        languages=by_language([record.question for record in kept.records], kept.verdicts),
        revision=revision,
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
