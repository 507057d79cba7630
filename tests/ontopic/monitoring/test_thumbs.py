"""Thumbs in windows: on their records, as far as they are known, with an alert only where enough of them say it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from word_judge import CARD, WordJudge

from ontopic.config.alert_settings import AlertSettings
from ontopic.config.policy import Policy
from ontopic.monitoring import closing
from ontopic.monitoring.alerts import Alert, Alerts
from ontopic.monitoring.closing import Closed, Closer, judge_records
from ontopic.monitoring.thumbs import LEAST_THUMBS, Thumbs, liked_metrics
from ontopic.monitoring.window import Window, WindowResult
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Feedback, Record
from ontopic.registry.promotions import Promotion
from ontopic.state.workspace import Workspace
from ontopic.statistics.rates import rate
from ontopic.statistics.sequential import confidence_sequence
from ontopic.traffic.store import TrafficStore

MODEL = "ontopic-banking"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Scene:
    """A policy's traffic, its windows of one hour each, and who closes them."""

    def __init__(self, policy: Policy, root: Path) -> None:
        self.workspace = Workspace(root=root)
        self.traffic = TrafficStore(self.workspace.traffic, MODEL)
        self.windows = WindowStore(self.workspace.windows, MODEL)
        rules = [AlertSettings(name="thumbs", events=["disliked"]), AlertSettings(name="score", events=["suspected"])]
        self.alerts = Alerts(self.workspace.alerts, rules, policy=policy.name)
        of = {"windows": self.windows, "alerts": self.alerts, "traffic": self.traffic}
        self.closer = Closer(policy.model_copy(update={"least_records": 1}), self.workspace, **of)

    def asked(self, hour: int, n: int, *, conversation: str = "") -> Window:
        rows = [
            Record(
                question=f"q{i}?",
                answer="good",
                id=f"{hour}-{i}",
                registered_model=MODEL,
                model_version="1",
                conversation=conversation,
                asked_at=NOON + hour * HOUR + timedelta(minutes=i % 60, milliseconds=i),
            )
            for i in range(n)
        ]
        self.traffic.add_many(rows)
        self.windows.put(rows, n)
        (window,) = self.windows.holding([row.id for row in rows])
        return window

    def thumbs(self, hour: int, thumbs: Sequence[bool], *, by: str = "app") -> None:
        for i, up in enumerate(thumbs):
            self.traffic.add_feedback(Feedback(record_id=f"{hour}-{i}", thumb="up" if up else "down", by=by))

    def close(self, window: Window) -> Closed:
        records = self.traffic.records(ids=self.windows.ids(window))
        judged = judge_records(self.windows, records, judge=WordJudge(), what=window.label)
        return self.closer.close(window, judged, card=CARD, now=window.end)

    def now(self, window: Window) -> WindowResult:
        result = next(each.result for each in self.windows.closed(-1) if each.id == window.id)
        assert result is not None
        return result


@pytest.fixture
def scene(banking: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(Closer, "_topics", SimpleNamespace(id="one", of=lambda questions: ["cards" for _ in questions]))
    promotion = Promotion(at=NOON - HOUR, version="1", before="", by="ann", why="better")
    monkeypatch.setattr(closing, "open_registry", lambda *_: SimpleNamespace(promotions=lambda: [promotion]))
    made = Scene(banking, tmp_path)
    yield made
    for store in (made.traffic, made.windows, made.alerts):
        store.close()


def texts(alerts: Sequence[Alert]) -> list[str]:
    return [alert.rule for alert in alerts]


def test_thumbs_enter_the_window_of_their_record_and_its_page(scene: Scene) -> None:
    first, second = scene.asked(0, 10), scene.asked(1, 10)
    assert scene.now(scene.close(first).window).thumbs is None  # nobody gave one yet
    scene.thumbs(1, [True] * 6 + [False] * 2)
    scene.thumbs(1, [True], by="branch")  # another key's on the same record
    closed = scene.close(second).window
    thumbs = scene.now(closed).thumbs
    assert thumbs == Thumbs(liked=rate(7, 9), since=confidence_sequence(7, 9), least=0.5)
    page = Path(scene.now(closed).report).read_text()
    assert "Thumbs that are up" in page and thumbs.in_words in page
    assert WindowResult.model_validate_json(scene.now(closed).model_dump_json()).thumbs == thumbs
    assert liked_metrics(thumbs.liked)["thumbs_up_n"] == 9 and liked_metrics(rate(0, 0)) == {}


def test_thumbs_of_one_conversation_say_less(scene: Scene) -> None:
    apart, together = scene.asked(0, 30), scene.asked(1, 30, conversation="one")
    for hour in (0, 1):
        scene.thumbs(hour, [True, False] * 15)
    widths = []
    for window in (apart, together):
        thumbs = scene.now(scene.close(window).window).thumbs
        assert thumbs is not None and thumbs.liked.value == 0.5
        widths.append(thumbs.liked.high - thumbs.liked.low)
    assert widths[1] > 2 * widths[0]


def test_late_thumbs_are_written_into_windows_that_are_closed(scene: Scene) -> None:
    windows = [scene.asked(hour, 4) for hour in range(3)]
    for window in windows:
        scene.close(window)
    assert scene.closer.add_thumbs() == []
    scene.thumbs(1, [True, False])
    drawn = {each.id: Path(scene.now(each).report).stat().st_mtime_ns for each in windows}
    assert scene.closer.add_thumbs() == []
    found = [scene.now(window).thumbs for window in windows]
    assert found[0] is None and found[2] is None  # it has none of its own, and is written anew when it is closed again
    assert found[1] is not None and found[1].liked == rate(1, 2)
    changed = [each.id for each in windows if Path(scene.now(each).report).stat().st_mtime_ns != drawn[each.id]]
    assert changed == [windows[1].id]
    before = scene.now(windows[1])
    assert scene.closer.add_thumbs() == []  # nothing is new
    assert scene.now(windows[1]) == before
    scene.traffic.erase(["1-3"])
    scene.windows.forget(["1-3"])
    scene.thumbs(1, [True])  # the same key says otherwise now; the page keeps what it has of the erased record
    scene.closer.add_thumbs()
    assert scene.now(windows[1]).thumbs == found[1].model_copy(
        update={"liked": rate(1, 2), "since": confidence_sequence(1, 2)}
    )


@pytest.mark.parametrize("late", [False, True], ids=["as it closes", "late"])
@pytest.mark.parametrize(
    ("thumbs", "alarm"),
    [
        ([False] * (LEAST_THUMBS - 1), False),  # all of too few
        ([False] * LEAST_THUMBS, True),
        ([True, False, False] * 10, False),  # a third of 30 are up: not for certain less than half
        ([True, False, False, False] * 15, True),
        ([True, False] * 60, False),
        ([True] * 40, False),
    ],
)
def test_an_alert_takes_enough_thumbs_that_are_down_for_certain(
    scene: Scene, thumbs: list[bool], alarm: bool, late: bool
) -> None:
    window = scene.asked(0, len(thumbs))
    if late:
        scene.close(window)
        scene.closer.add_thumbs()
    scene.thumbs(0, thumbs)
    raised = scene.closer.add_thumbs() if late else scene.close(window).alerts
    assert texts(raised) == ["thumbs"] * alarm
    assert (scene.closer.add_thumbs(), len(scene.alerts.history(9))) == ([], int(alarm))
    if alarm:
        assert scene.now(window).thumbs.in_words in raised[0].text  # type: ignore[union-attr]
        assert scene.now(window).status == "ok"  # a thumb is no verdict


def test_thumbs_add_up_over_the_windows_of_a_version(scene: Scene) -> None:
    raised = []
    for hour in range(4):
        window = scene.asked(hour, 8)
        scene.thumbs(hour, [False] * 8)
        raised += [(hour, each) for each in texts(scene.close(window).alerts)]
    assert raised == [(2, "thumbs")]  # with 24; the alert is open as the fourth one closes


def test_what_is_disliked_stays_open_while_the_score_recovers(scene: Scene) -> None:
    scene.alerts.event("suspected", "a window before", at=NOON, text="low")
    for hour in range(2):
        window = scene.asked(hour, LEAST_THUMBS)
        scene.thumbs(hour, [False] * LEAST_THUMBS)
        scene.close(window)
    assert [(each.rule, each.closed_by) for each in scene.alerts.history(9)] == [("thumbs", ""), ("score", "recovered")]


def test_a_window_of_before_there_were_thumbs_can_be_read(scene: Scene) -> None:
    result = scene.now(scene.close(scene.asked(0, 3)).window).model_dump(exclude={"thumbs"})
    assert WindowResult.model_validate(result).thumbs is None
