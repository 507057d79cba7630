"""A judge that goes by one word of the answer, its card, and labelled traffic on which it errs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ontopic.data.labels import TrafficLabel
from ontopic.judges.cards.card import JudgeCard
from ontopic.judges.cards.traffic_card import TrafficLabels
from ontopic.judges.judge import Account
from ontopic.monitoring.closing import judge_records
from ontopic.monitoring.standing import WindowLimits
from ontopic.monitoring.window import Cut, window_result
from ontopic.monitoring.windows import WindowStore
from ontopic.progress import Advance
from ontopic.records import Record, Verdict
from ontopic.statistics.rates import rate
from ontopic.traffic.store import TrafficStore

LIMITS = WindowLimits(threshold=0.9, least_records=1, most_unjudged=0.5)  # for windows of a few records
# A judge that errs.
CARD = JudgeCard(
    judge_id="words",
    accuracy=rate(180, 200),
    kappa=rate(160, 200),
    sensitivity=rate(90, 100),
    specificity=rate(90, 100),
    unjudged=0,
)


@dataclass
class WordJudge:
    """Passes an answer with ``good``, fails one with ``bad``, cannot judge others; notes what it was asked.

    Attributes:
        stops_after: raises after so many records, as a killed process would stop.
    """

    id: str = "words"
    account: Account = field(default_factory=Account)
    asked: list[str] = field(default_factory=list)
    stops_after: int | None = None

    def judge(self, records: Sequence[Record], advance: Advance | None = None) -> list[Verdict]:
        if self.stops_after is not None and len(self.asked) + len(records) > self.stops_after:
            raise KeyboardInterrupt
        self.asked += [record.id for record in records]
        return [self._verdict(record) for record in records]

    def _verdict(self, record: Record) -> Verdict:
        if "good" in record.answer or "bad" in record.answer:
            return Verdict(
                outcome="pass" if "good" in record.answer else "fail",
                score=0.9,
                explanation=record.answer,
                judge_id=self.id,
                in_scope=True,
                declined=False,
            )
        return Verdict(outcome="unjudged", score=None, explanation="", judge_id=self.id, cause="no word")


def close_windows(windows: WindowStore, traffic: TrafficStore, *, judge: WordJudge, cut: Cut, now: datetime) -> None:
    """Close the windows whose time has come."""
    windows.take_in(traffic, cut, now=now)
    for window in windows.due(cut, now):
        judged = judge_records(windows, traffic.records(ids=windows.ids(window)), judge=judge, what="a window")
        result = window_result(judged, CARD, limits=LIMITS, counts=windows.counts(window))
        windows.close_window(window, result, now=now)


def labelled_traffic(
    good: tuple[int, int] = (90, 100), bad: tuple[int, int] = (90, 100), version: str = "1"
) -> TrafficLabels:
    """Labelled records of a version's traffic: of so many good and bad ones, so many the judge gets right."""
    rows = [("pass", i < good[0]) for i in range(good[1])] + [("fail", i >= bad[0]) for i in range(bad[1])]
    return TrafficLabels(
        judge_id="words",
        records=[
            TrafficLabel.model_validate(
                {"question": f"labelled {i}?", "answer": "a", "label": label, "drawn": "random"}
                | {"record_id": f"labelled-{version}-{i}", "model_version": version}
            )
            for i, (label, _) in enumerate(rows)
        ],
        verdicts=[
            Verdict(outcome="pass" if passes else "fail", score=0.5, explanation="", judge_id="words")
            for _, passes in rows
        ],
    )
