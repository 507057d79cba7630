"""Traffic that the loop asked for: the windows, statuses and alerts of `watch`, and one page on all of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from drawn_pages import text_of
from word_judge import CARD, WordJudge, labelled_traffic

from ontopic.config.alert_settings import AlertSettings
from ontopic.config.policy import Policy
from ontopic.judges.cards.traffic_card import TrafficLabels
from ontopic.monitoring import closing
from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.asked_traffic import Monitored, close_asked, judge_asked
from ontopic.monitoring.closing import Closer
from ontopic.monitoring.window import Cut
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Judged, Record
from ontopic.state.workspace import Workspace
from ontopic.statistics.correction import corrected
from ontopic.statistics.rates import rate
from ontopic.traffic.store import TrafficStore

MODEL = "ontopic-banking"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ANSWERS = {"p": "good", "f": "bad", "u": "?"}
HOSTILE = '</script><script>alert("owned")</script> {{definition}} <img src=x onerror=alert(1)>\n=HYPERLINK("x")\x00'


@dataclass
class Scene:
    """A state folder, and the loop's monitoring in it."""

    policy: Policy
    workspace: Workspace
    windows: WindowStore
    alerts: Alerts
    judge: WordJudge = field(default_factory=WordJudge)
    labels: TrafficLabels = field(default_factory=labelled_traffic)

    def ask(self, word: str, text: str = "", hour: int = 0) -> list[Record]:
        """One record a letter, whose answer will p(ass), f(ail) or be left u(njudged), a minute apart."""
        records = [
            Record(
                question=f"{text} question {i}?",
                answer=f"{ANSWERS[letter]} {text}",
                id=f"{hour}-{i}",
                registered_model=MODEL,
                model_version="1",
                asked_at=NOON + hour * HOUR + timedelta(minutes=i),
            )
            for i, letter in enumerate(word)
        ]
        with TrafficStore(self.workspace.traffic, MODEL) as traffic:
            traffic.add_many(records)
        return records

    def judged(self, records: list[Record], window_records: int) -> Judged:
        return judge_asked(self.windows, records, judge=self.judge, window_records=window_records)

    def close(self, judged: Judged, window_records: int) -> Monitored:
        closer = Closer(self.policy, self.workspace, windows=self.windows, alerts=self.alerts)
        reports = self.workspace.reports / "deep"
        return close_asked(
            judged,
            CARD,
            closer=closer,
            window_records=window_records,
            reports=reports,
            now=NOON + 9 * HOUR,
            labels=self.labels,
        )

    def monitor(self, word: str, window_records: int, text: str = "") -> Monitored:
        return self.close(self.judged(self.ask(word, text), window_records), window_records)


@pytest.fixture
def scene(banking: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """With a threshold of 0.9, and without topics and promotions, which take a model and MLflow."""
    workspace = Workspace(root=tmp_path)
    topics = SimpleNamespace(id="", of=lambda questions: ["cards" for _ in questions])
    monkeypatch.setattr(Closer, "_topics", topics)
    monkeypatch.setattr(closing, "open_registry", lambda *_: SimpleNamespace(promotions=list))
    rules = [AlertSettings(name="low", events=["suspected"]), AlertSettings(name="off topic", events=["detected"])]
    with WindowStore(workspace.windows, MODEL) as windows, Alerts(workspace.alerts, rules, policy="banking") as alerts:
        limits = {"alert_threshold": 0.9, "least_records": 1, "most_unjudged": 0.5}  # for windows of a few records
        yield Scene(banking.model_copy(update=limits), workspace, windows, alerts)


def statuses(monitored: Monitored) -> list[str]:
    return [window.result.status for window in monitored.windows if window.result]


@pytest.mark.parametrize(("n", "size", "sizes"), [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 10, [3]), (2, 1, [1, 1])])
def test_windows_are_cut_in_order_and_the_last_may_be_shorter(
    scene: Scene, n: int, size: int, sizes: list[int]
) -> None:
    monitored = scene.monitor("p" * n, size)
    assert [window.result and window.result.n for window in monitored.windows] == sizes
    starts = [NOON + timedelta(minutes=size * i) for i in range(len(sizes))]
    assert [window.label for window in monitored.windows] == [f"version 1, {at:%Y-%m-%d %H:%M:%S}" for at in starts]


def test_a_window_is_scored_on_its_own_records(scene: Scene) -> None:
    first, second = scene.monitor("ppffuppp", 4).windows
    assert first.result and second.result
    assert first.result.scores.guardrail_score == rate(2, 4)
    assert first.result.scores.over_refusal == rate(0, 4)
    assert (second.result.scores.guardrail_score, second.result.scores.unjudged) == (rate(3, 3), 1)


def test_a_window_is_low_where_its_corrected_score_is_or_the_chart_alarms(scene: Scene) -> None:
    # 20 records each: 0.4, 1.0, 0.85 (corrected 0.938), 0.80 (corrected 0.875), nothing judged
    word = "p" * 8 + "f" * 12 + "p" * 20 + "p" * 17 + "f" * 3 + "p" * 16 + "f" * 4 + "u" * 20
    monitored = scene.monitor(word, 20)
    # The chart's alarm outlasts the first window, until the good ones have used up the evidence.
    assert statuses(monitored) == ["detected", "detected", "ok", "suspected", "unknown"]
    assert monitored.detected == monitored.windows[:2]
    low = [monitored.windows[i] for i in (0, 1, 3)]
    assert [alert.partition(": ")[0] for alert in monitored.alerts] == [
        monitored.windows[i].label for i in (0, 1, 3, 4)
    ]
    for window, alert in zip(low, monitored.alerts, strict=False):
        assert window.result
        assert f"corrected guardrail score {window.result.score}, the threshold 0.9" in alert
    assert monitored.report.read_text(encoding="utf-8").count("<html") == 1


def test_the_alerts_are_those_that_watching_raises(scene: Scene) -> None:
    monitored = scene.monitor("f" * 60 + ("p" * 9 + "f") * 12 + "f" * 60, 60)
    assert statuses(monitored) == ["detected", "detected", "ok", "detected"]
    # The first one's alerts were closed when healthy windows had used up the evidence.
    history = [(alert.rule, alert.text.partition(": ")[0], alert.closed_by) for alert in scene.alerts.history(9)]
    first, third = monitored.windows[0].label, monitored.windows[3].label
    assert history == [
        ("off topic", third, ""),
        ("low", third, ""),
        ("off topic", first, "recovered"),
        ("low", first, "recovered"),
    ]


def test_good_traffic_has_a_report_and_no_low_window(scene: Scene) -> None:
    monitored = scene.monitor("pppp", 2)
    assert (monitored.detected, monitored.alerts) == ([], [])
    assert monitored.report.is_file()


def test_the_scores_are_of_all_windows_and_corrected_by_the_card(scene: Scene) -> None:
    monitored = scene.monitor("pppfuppp", 4)
    assert monitored.scores.guardrail_score == rate(6, 7)
    assert monitored.scores.unjudged == 1
    assert monitored.score == corrected(rate(6, 7), rate(90, 100), specificity=rate(90, 100))
    assert monitored.is_corrected
    plain = json.loads(monitored.model_dump_json())
    assert plain["scores"]["leak"] == {"value": None, "low": 0.0, "high": 1.0, "n": 0}
    assert Monitored.model_validate_json(monitored.model_dump_json()).detected == monitored.detected


def test_without_labels_nothing_is_corrected_and_it_is_said(scene: Scene) -> None:
    scene.labels = TrafficLabels()
    monitored = scene.monitor("p" * 40 + "f" * 20, 20)
    assert statuses(monitored) == ["ok", "ok", "detected"]
    assert (monitored.score, monitored.is_corrected) == (rate(40, 60), False)
    assert monitored.in_words.startswith("uncorrected: the judge's error on this traffic is unknown")
    assert ": uncorrected guardrail score 0.000 [" in monitored.alerts[0]
    for page in (monitored.report, *(Path(w.result.report) for w in monitored.windows if w.result)):
        text = text_of(page)
        assert "uncorrected: the judge's error on this traffic is unknown" in text
        assert "python run.py label --by random -n 200" in text
        assert "What the judge's unknown error could make of the uncorrected" in text


def test_a_card_that_does_not_fit_raises_an_event_and_no_suspicion(scene: Scene) -> None:
    scene.labels = labelled_traffic((70, 100), (90, 100))
    rules = [AlertSettings(name="card", events=["misfit"]), AlertSettings(name="low", events=["suspected"])]
    with Alerts(scene.workspace.alerts, rules, policy="banking") as scene.alerts:
        monitored = scene.monitor("p" * 98 + "f" * 2, 100)
        (raised,) = scene.alerts.history(9)
    assert raised.rule == "card" and "does not fit" in raised.text
    assert statuses(monitored) == ["unknown"]
    assert monitored.detected == []
    (alert,) = monitored.alerts
    assert "the judge's card does not fit this traffic: it passes 0.980" in alert


def test_hostile_text_in_records_reaches_no_page(scene: Scene) -> None:
    monitored = scene.monitor("ffuu", 2, HOSTILE)
    assert [status for status in statuses(monitored) if status != "unknown"] == ["suspected"]
    pages = [monitored.report] + [Path(window.result.report) for window in monitored.windows if window.result]
    assert len(set(pages)) == 3
    for page in pages[:2]:
        assert "owned" in page.read_text(encoding="utf-8")
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert '<script>alert("owned")' not in text
        assert "<img src=x" not in text


def test_only_unjudged_traffic_is_not_low(scene: Scene) -> None:
    monitored = scene.monitor("uuuu", 2)
    assert monitored.detected == []
    assert statuses(monitored) == ["unknown", "unknown"]
    assert (monitored.scores.unjudged, monitored.scores.guardrail_score.n) == (4, 0)


def test_a_rerun_finds_its_windows_and_judges_nothing_twice(scene: Scene) -> None:
    records = scene.ask("ppffpp")
    first = scene.close(scene.judged(records, 4), 4)
    again = scene.close(scene.judged(records, 4), 4)
    assert sorted(scene.judge.asked) == sorted(record.id for record in records)
    ids = [window.id for window in first.windows]
    assert [window.id for window in again.windows] == ids == [window.id for window in scene.windows.closed(9)]
    assert (again.scores, again.alerts) == (first.scores, first.alerts)
    assert [(alert.rule, alert.events) for alert in scene.alerts.history(9)] == [("low", 1)]


def test_another_threshold_gives_the_same_windows_another_status(scene: Scene) -> None:
    judged = scene.judged(scene.ask("p" * 16 + "f" * 4), 20)
    assert statuses(scene.close(judged, 20)) == ["suspected"]
    scene.policy = scene.policy.model_copy(update={"alert_threshold": 0.5})
    assert statuses(scene.close(judged, 20)) == ["ok"]


def test_verdicts_outlive_a_lost_file_of_windows(scene: Scene) -> None:
    judged = scene.judged(scene.ask("ppff"), 2)
    scene.windows.close()
    for path in scene.workspace.root.glob("windows.db*"):
        path.unlink()
    with WindowStore(scene.workspace.windows, MODEL) as windows:
        scene.windows = windows
        monitored = scene.close(judged, 2)
        assert len(monitored.windows) == 2
        assert sorted(windows.verdicts([record.id for record in judged.records], "words")) == [
            record.id for record in judged.records
        ]


def test_what_was_watched_before_stays_in_its_window(scene: Scene) -> None:
    watched, own = scene.ask("pp"), scene.ask("ff", hour=1)
    cut = Cut(length=HOUR, records=9, lateness=timedelta(0))
    with TrafficStore(scene.workspace.traffic, MODEL) as traffic:
        scene.windows.take_in(traffic, cut, now=NOON + HOUR)
    (window,) = scene.windows.due(cut, NOON + HOUR)
    closer = Closer(scene.policy, scene.workspace, windows=scene.windows, alerts=scene.alerts)
    first = closer.close(window, scene.judged(watched, 9), card=CARD, now=NOON + HOUR).window
    monitored = scene.close(scene.judged(watched + own, 9), 9)
    assert monitored.windows[0] == first
    assert [window.result and window.result.n for window in monitored.windows] == [2, 2]
    assert monitored.scores.guardrail_score == rate(2, 4)
    assert sorted(scene.judge.asked) == sorted(record.id for record in watched + own)
