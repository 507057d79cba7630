"""Traffic that the loop asked for: in the same windows as what `watch` sees, and reported as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from ontopic.monitoring.side_score import SideScore
from ontopic.monitoring.window import Window
from ontopic.records import Judged, Record
from ontopic.statistics.rates import Rate
from ontopic.statistics.scores import Scores, score
from ontopic.visible import visible

if TYPE_CHECKING:
    from ontopic.judges.cards.card import JudgeCard
    from ontopic.judges.cards.traffic_card import TrafficLabels
    from ontopic.judges.judge import Judge
    from ontopic.monitoring.closing import Closer
    from ontopic.monitoring.judges_beside import JudgesBeside
    from ontopic.monitoring.windows import WindowStore


class Monitored(BaseModel):
    """What monitoring found in one stretch of traffic.

    Attributes:
        scores: of all its records together.
        score: the guardrail score, with the judge's error taken out where ``is_corrected``.
        in_words: what is known of it, in a sentence or two.
        windows: that it is in, closed, in the order of their ends.
        alerts: a sentence for each window that is of concern.
        report: the page on it.
        beside: what the judges beside the one that gates say of the same records.
        liked: the share of the thumbs on these records that are up; ``None`` where none were read.
    """

    model_config = ConfigDict(frozen=True)
    scores: Scores
    score: Rate = Field(validation_alias=AliasChoices("score", "corrected"))  # as older results call it
    is_corrected: bool = True
    in_words: str = ""
    windows: list[Window]
    alerts: list[str]
    report: Path
    beside: list[SideScore] = Field(default=[])
    liked: Rate | None = None

    @property
    def detected(self) -> list[Window]:
        """The windows that are shown to be under the threshold."""
        return [window for window in self.windows if window.result and window.result.status == "detected"]


def judge_asked(windows: WindowStore, records: Sequence[Record], *, judge: Judge, window_records: int) -> Judged:
    """Put records into windows of ``window_records``, where they are in none yet, and have them judged.

    The verdicts are kept with the windows, so that the same records are judged once.
    """
    from ontopic.monitoring.closing import judge_records  # with Evidently, which who reads a result need not load

    windows.put(records, window_records)
    return judge_records(windows, records, judge=judge, what=_versions(records))


def close_asked(
    judged: Judged,
    card: JudgeCard,
    *,
    closer: Closer,
    window_records: int,
    reports: Path,
    now: datetime,
    labels: TrafficLabels | None = None,
    beside: JudgesBeside | None = None,
) -> Monitored:
    """Close the windows that ``judge_asked`` made, and report on all of the traffic.

    Records that were in windows of `watch` before stay there, and such a window counts as it was closed.

    Args:
        judged: what ``judge_asked`` returned, maybe long ago: windows and verdicts that are gone are put back.
        card: of the judge that judged it, on templates.
        labels: of the policy's traffic, with that judge's verdicts.
        reports: the folder of the page on all of it.
    """
    from ontopic.monitoring.standing import limits_of, standing
    from ontopic.monitoring.traffic_page import traffic_report

    policy, windows = closer.policy, closer.windows
    verdicts = {record.id: verdict for record, verdict in zip(judged.records, judged.verdicts, strict=True)}
    windows.put(judged.records, window_records)
    windows.keep_verdicts(verdicts, card.judge_id)
    found = windows.holding(list(verdicts))
    closed = _closed(found, judged, card=card, closer=closer, now=now, labels=labels, beside=beside)
    version, scores, liked = _versions(judged.records), score(judged.verdicts), closer.liked(judged.records)
    out = reports / _page(policy.registered_model, version=version, first=found[0])
    of = standing(judged, card, limits=limits_of(policy), labels=labels, version=_answered(judged))
    besides = beside.measure(judged.records, version) if beside else []
    traffic_report(
        f"OnTopic monitoring: {policy.name}, model {version}",
        judged,
        of=of,
        windows=closed,
        limits=limits_of(policy),
        beside=besides,
        out=out,
    )
    return Monitored(
        scores=scores,
        score=of.score,
        is_corrected=of.is_corrected,
        in_words=of.in_words,
        windows=closed,
        alerts=_alerts(closed),
        report=out,
        beside=besides,
        liked=liked,
    )


def _answered(judged: Judged) -> str:
    return judged.records[0].model_version if judged.records else ""


def _page(registered_model: str, *, version: str, first: Window) -> str:
    from ontopic.reports.page_name import page_name

    # Named after its first window: a version's later traffic does not overwrite the page on its first.
    at = f"{first.start:%Y%m%dT%H%M%S}"
    return page_name("monitoring", registered_model, version.replace(" ", "-"), at, str(first.id))


def _closed(
    found: Sequence[Window],
    judged: Judged,
    *,
    card: JudgeCard,
    closer: Closer,
    now: datetime,
    labels: TrafficLabels | None,
    beside: JudgesBeside | None,
) -> list[Window]:
    """Those of the windows that have a result, once those that are not closed yet are."""
    closed = []
    for window in found:
        if closer.windows.was_put(window):
            part = _part(judged, set(closer.windows.ids(window)))
            window = closer.close(window, part, card=card, now=now, labels=labels).window
            window = beside.add_to(window, part, closer=closer) if beside else window
        if window.result:
            closed.append(window)
    if closed:
        closer.show()
    return closed


def _part(judged: Judged, ids: set[str]) -> Judged:
    rows = [(r, v) for r, v in zip(judged.records, judged.verdicts, strict=True) if r.id in ids]
    return Judged(records=[record for record, _ in rows], verdicts=[verdict for _, verdict in rows])


def _alerts(closed: Sequence[Window]) -> list[str]:
    from ontopic.monitoring.concerns import concerns

    alerts = []
    for window in closed:
        found = concerns(window)
        if not found:
            continue
        text = next(iter(found.values()))
        others = [event.replace("_", " ") for event, said in found.items() if said != text]
        alerts.append(f"{window.label}: {text}" + (f"; also {', '.join(others)}" if others else ""))
    return alerts


def _versions(records: Sequence[Record]) -> str:
    return "version " + ", ".join(sorted({visible(record.model_version) or "unknown" for record in records}))
