"""An alarm of the chart is acted upon, however long that must wait, and once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loopback import ROOT
from values import replace
from word_judge import CARD, LIMITS, WordJudge

from ontopic.config.settings import load_settings
from ontopic.errors import UserError
from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.chart import carried, levels_of, outcomes_of
from ontopic.monitoring.window import Counts, window_result
from ontopic.monitoring.windows import WindowStore
from ontopic.records import EARLIEST, Judged, Record
from ontopic.registry.promotions import Promotion
from ontopic.traffic.store import TrafficStore
from ontopic.watch.actions import ActionStore
from ontopic.watch.journal import Journal
from ontopic.watch.retraining import Improvement, Retraining

MODEL = "ontopic-banking"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@dataclass
class Scene:
    """A champion promoted at eleven, its windows, and a gate that refuses all challengers."""

    windows: WindowStore
    traffic: TrafficStore
    journal: Journal
    said: list[str]
    asked: list[Improvement] = field(default_factory=list)
    fails: bool = False

    def improve(self, wanted: Improvement) -> Any:
        self.asked.append(wanted)
        if self.fails:
            raise UserError("the judge may not gate")
        decision = SimpleNamespace(tests=[], report="gate.html")
        return SimpleNamespace(challenger="3", kind="refused", promoted=False, decision=decision)

    def close(self, hour: float, *answers: str, with_chart: bool = True) -> None:
        """A window of these answers, closed as monitoring closes it, but for its page."""
        records = [
            Record(
                question=f"question {hour} {i}",
                answer=answer,
                id=f"{hour}-{i}",
                registered_model=MODEL,
                model_version="2",
                asked_at=NOON + hour * HOUR + timedelta(seconds=i),
            )
            for i, answer in enumerate(answers)
        ]
        self.traffic.add_many(records)
        self.windows.put(records, len(records))
        (window,) = self.windows.holding([records[0].id])
        verdicts = WordJudge().judge(records)
        self.windows.keep_verdicts({r.id: v for r, v in zip(records, verdicts, strict=True)}, "words")
        judged = Judged(records=records, verdicts=verdicts)
        before = self.windows.earlier(window, 1)
        chart = carried(
            before[0].result.chart if before and before[0].result else None,
            outcomes_of(judged),
            since=self.windows.chart_restarted("2") or EARLIEST,
            levels=levels_of(0.85, CARD),
        )
        result = window_result(
            judged,
            CARD,
            limits=replace(LIMITS, threshold=0.85, most_unjudged=0.05),
            counts=Counts(n=len(records)),
            chart=chart,
        )
        if not with_chart:
            result = result.model_copy(update={"chart": None, "status": "detected"})
        self.windows.close_window(window, result, now=window.end)

    def look(self, hour: float) -> list[str]:
        now = NOON + hour * HOUR
        settings = load_settings(ROOT / "configs/local.yaml")
        watch = settings.watch.model_copy(update={"cooldown": 3 * HOUR, "retrainings_a_day": 9})
        promoted = Promotion(at=NOON - HOUR, version="2", before="1", by="ann", why="better")
        retraining = Retraining(
            settings.model_copy(update={"watch": watch}),
            SimpleNamespace(champion=lambda: "2", promotions=lambda: [promoted]),  # type: ignore[arg-type]
            traffic=self.traffic,
            windows=self.windows,
            judge=SimpleNamespace(card=CARD, gate_card=CARD),  # type: ignore[arg-type]
            journal=self.journal,
            improve=self.improve,
            clock=lambda: now,
        )
        return [action.kind for action in retraining.look(now, record=[])]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    said: list[str] = []
    with (
        WindowStore(tmp_path / "windows.db", MODEL) as windows,
        TrafficStore(tmp_path / "traffic.db", MODEL) as traffic,
        ActionStore(tmp_path / "windows.db", MODEL) as actions,
        Alerts(tmp_path / "alerts.db", [], policy="banking") as alerts,
    ):
        yield Scene(windows, traffic, Journal(actions, alerts, tell=said.append), said)


def test_an_alarm_in_a_cooldown_is_acted_upon_when_that_is_over(scene: Scene) -> None:
    scene.close(0, *["bad"] * 60)
    assert scene.look(1) == []
    assert "it cools down until" in scene.said[-1]
    scene.close(1, *["good"] * 10)  # by itself a good window
    assert scene.look(2.5) == ["refused"]
    assert len(scene.asked) == 1


def test_an_alarm_is_met_once_and_the_next_needs_new_evidence(scene: Scene) -> None:
    scene.close(0, *["bad"] * 60)
    assert scene.look(3) == ["refused"]
    assert scene.look(9) == []
    scene.close(8, *["bad"] * 40)
    assert scene.look(10) == []
    scene.close(9, *["bad"] * 20)
    assert scene.look(11) == ["refused"]
    assert "are detected" not in scene.said[-1] and len(scene.asked) == 2


def test_a_retraining_that_failed_did_nothing_about_it(scene: Scene) -> None:
    scene.close(0, *["bad"] * 60)
    scene.fails = True
    assert scene.look(3) == ["failed"]
    assert scene.look(4) == []
    scene.fails = False
    assert scene.look(7) == ["refused"]


def test_the_window_before_the_newest_counts_where_two_close_at_once(scene: Scene) -> None:
    scene.close(0, *["bad"] * 60)
    scene.close(1, *["good"] * 5)
    assert scene.look(3) == ["refused"]
    assert "evidence of a fall" in " ".join(scene.said)


def test_an_alarm_waits_while_the_newest_window_says_nothing(scene: Scene) -> None:
    scene.close(0, *["bad"] * 60)
    scene.close(1, *["good"] * 10, *["?"] * 5)  # too much of it is unjudged
    assert scene.look(3) == []
    scene.close(3, *["good"] * 10)
    assert scene.look(4) == ["refused"]


def test_windows_that_are_low_by_themselves_alone_raise_no_alarm(scene: Scene) -> None:
    for hour in range(4):
        scene.close(hour, *["good"] * 7, *["bad"] * 3)
    assert scene.look(5) == []


def test_what_an_earlier_release_detected_counts(scene: Scene) -> None:
    scene.close(0, *["bad"] * 60, with_chart=False)
    assert scene.look(3) == ["refused"]
