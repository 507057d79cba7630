"""Alerts: what raises them, who hears of them and how often, over real HTTP on the loopback interface."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml
from loopback import ROOT, answering
from typer.testing import CliRunner, Result

import run
from ontopic.config.alert_settings import AlertSettings
from ontopic.config.settings import load_settings
from ontopic.errors import UserError
from ontopic.monitoring import alerts as module
from ontopic.monitoring.alerts import Alerts

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
OVER = ("suspected", "detected")
HOSTILE = "window \x1b[31m\n<script>alert(1)</script> " + "x" * 5000


@dataclass
class Receiver:
    """A webhook's receiver.

    Attributes:
        got: the bodies that it took.
        refuses: how many requests it still answers with 500.
    """

    url: str = ""
    got: list[dict[str, Any]] = field(default_factory=list)
    refuses: int = 0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found, lock = Receiver(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                refused = found.refuses > 0
                found.refuses -= refused
                if not refused:
                    found.got.append(body)
            self.send_response(500 if refused else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with answering(Handler) as url:
        found.url = f"json://user:s3cret@{url.removeprefix('http://')}/hook"
        yield found


def rule(receiver: Receiver | None = None, **changed: Any) -> AlertSettings:
    values = {"name": "off topic", "events": ["detected"], "severity": "critical"}
    values["notify"] = [receiver.url] if receiver else []
    return AlertSettings.model_validate(values | changed)


def opened(at: Path | str, *rules: AlertSettings) -> Alerts:
    return Alerts(at, rules, policy="banking")


def states(alerts: Alerts) -> list[str]:
    return [f"{alert.rule} {alert.events} {alert.closed_by or 'open'}" for alert in alerts.history(20)]


def test_an_alert_is_raised_sent_once_and_collects_events(tables_at: Path | str, receiver: Receiver) -> None:
    with opened(tables_at, rule(receiver)) as alerts:
        assert alerts.event("suspected", "w0", at=NOON, text="low") == []
        (raised,) = alerts.event("detected", "w1", at=NOON, text=HOSTILE)
        assert (raised.severity, raised.waiting, raised.raised_at) == ("critical", 1, NOON)
        assert alerts.event("detected", "w1", at=NOON, text="again") == []  # the same event
        assert alerts.event("detected", "w2", at=NOON + MINUTE, text="low") == []  # the alert is open
        assert alerts.deliver(NOON) == (1, 0)
        assert alerts.deliver(NOON + MINUTE) == (0, 0)
        (alert,) = alerts.history(5)
        assert (alert.events, alert.last_at, alert.sent, alert.waiting) == (2, NOON + MINUTE, 1, 0)
    (body,) = receiver.got
    assert body["title"] == "OnTopic banking: critical, off topic"
    assert body["type"] == "failure"
    assert "(alert 1)" in body["message"]
    assert "<script>" in body["message"]  # plain text for the receiver, on one line
    assert not any(ord(character) < 32 for character in body["message"])
    assert len(body["message"]) < 1500


@pytest.mark.parametrize(
    ("minutes", "raised_at"), [((0, 10, 20), [20]), ((0, 40, 80), []), ((0, 40, 80, 90), [90]), ((0, 0, 0), [0])]
)
def test_so_many_events_in_a_period_raise_it(
    tables_at: Path | str, minutes: tuple[int, ...], raised_at: list[int]
) -> None:
    with opened(tables_at, rule(events=["suspected", "detected"], count=3, period="1h")) as alerts:
        for number, minute in enumerate(minutes):
            alerts.event("detected" if number else "suspected", f"w{number}", at=NOON + minute * MINUTE, text="low")
        assert [alert.raised_at for alert in alerts.history(5)] == [NOON + minute * MINUTE for minute in raised_at]


def test_a_healthy_window_resets_what_resets_by_itself(tables_at: Path | str, receiver: Receiver) -> None:
    by_hand = rule(name="by hand", reset="manual")
    with opened(tables_at, rule(receiver), by_hand) as alerts:
        alerts.event("detected", "w1", at=NOON, text="low")
        alerts.recovered("w2", at=NOON + MINUTE, over=OVER)
        assert states(alerts) == ["by hand 1 open", "off topic 1 recovered"]
        alerts.event("detected", "w3", at=NOON + 2 * MINUTE, text="low")
        assert states(alerts) == ["off topic 1 open", "by hand 2 open", "off topic 1 recovered"]
        alerts.close_alert(2, at=NOON, by="ann")
        with pytest.raises(UserError, match="no open alert 2"):
            alerts.close_alert(2, at=NOON, by="ann")
        alerts.event("detected", "w4", at=NOON + 3 * MINUTE, text="low")
        assert states(alerts)[0] == "by hand 1 open"
        assert alerts.deliver(NOON + 3 * MINUTE) == (3, 0)
    assert [body["message"].split(":")[0] for body in receiver.got] == ["w1", "over", "w3"]


def test_what_the_loop_did_is_sent_each_time(tables_at: Path | str, receiver: Receiver) -> None:
    with opened(tables_at, rule(receiver, name="loop", events=["promoted", "rolled_back"], severity="info")) as alerts:
        for number in range(3):
            alerts.event("promoted", f"version {number}", at=NOON + number * MINUTE, text="the gate: all tests passed")
        assert states(alerts) == ["loop 1 told"] * 3
        assert alerts.deliver(NOON + 3 * MINUTE) == (3, 0)
    assert [body["type"] for body in receiver.got] == ["info"] * 3


def test_what_fails_is_sent_again_later_and_given_up_after_a_day(tables_at: Path | str, receiver: Receiver) -> None:
    with opened(tables_at, rule(receiver)) as alerts:
        alerts.event("detected", "w1", at=NOON, text="low")
        receiver.refuses = 2
        assert alerts.deliver(NOON) == (0, 1)
        assert alerts.deliver(NOON + timedelta(seconds=29)) == (0, 0)
        assert alerts.deliver(NOON + timedelta(seconds=30)) == (0, 1)
        assert alerts.deliver(NOON + timedelta(seconds=89)) == (0, 0)
        assert alerts.deliver(NOON + timedelta(seconds=90)) == (1, 0)
        alerts.recovered("w2", at=NOON, over=OVER)
        receiver.refuses, now, failures = 1000, NOON, 0
        while now < NOON + timedelta(days=2):
            failures += alerts.deliver(now)[1]
            now += 30 * MINUTE
        assert 20 < failures < 40
        assert [(alert.sent, alert.waiting, alert.failed) for alert in alerts.history(1)] == [(1, 0, 1)]


def test_a_kill_after_sending_sends_again(
    tables_at: Path | str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = module._send

    def killed(url: str, title: str, *, body: str, severity: str) -> bool:
        really(url, title, body=body, severity=severity)
        raise KeyboardInterrupt

    with opened(tables_at, rule(receiver)) as alerts:
        alerts.event("detected", "w1", at=NOON, text="low")
        monkeypatch.setattr(module, "_send", killed)
        with pytest.raises(KeyboardInterrupt):
            alerts.deliver(NOON)
    monkeypatch.undo()
    with opened(tables_at, rule(receiver)) as alerts:
        assert alerts.deliver(NOON + MINUTE) == (0, 0)  # the other could still be sending
        assert alerts.deliver(NOON + 3 * MINUTE) == (1, 0)
    first, second = receiver.got
    assert first == second


def test_two_processes_send_it_once(tables_at: Path | str, receiver: Receiver) -> None:
    both = [opened(tables_at, rule(receiver)) for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda i: both[i % 2].event("detected", f"w{i // 2}", at=NOON, text="low"), range(20)))
        assert states(both[0]) == ["off topic 10 open"]
        sent = list(threads.map(lambda alerts: alerts.deliver(NOON), both))
    assert sorted(sent) == [(0, 0), (1, 0)]
    assert len(receiver.got) == 1


def test_secrets_stay_out_of_file_and_messages(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONTOPIC_HOOK", receiver.url)
    with opened(tmp_path / "alerts.db", rule(receiver), rule(name="other", notify=["env:ONTOPIC_HOOK"])) as alerts:
        alerts.event("detected", "w1", at=NOON, text="low")
        assert alerts.deliver(NOON) == (2, 0)
        shown = alerts.test()
    assert [(name, ok) for name, _, ok in shown] == [("off topic", True), ("other", True)]
    assert "s3cret" not in str(shown)
    assert b"s3cret" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    wrongs = [("env:NO_SUCH_VARIABLE", "is not set"), ("nonsense", "Apprise does not know")]
    # Which leads outside, by the proxy that the tests are behind.
    wrongs += [("jsons://alerts.example/hook", "ALL_PROXY in the environment names a SOCKS proxy")]
    for wrong, said in wrongs:
        with pytest.raises(UserError, match=said):
            opened(tmp_path / "alerts.db", rule(notify=[wrong]))
    with pytest.raises(UserError) as raised:
        opened(tmp_path / "alerts.db", rule(notify=["jsn://user:s3cret@host"]))
    assert "s3cret" not in str(raised.value)


def test_a_target_that_is_gone_fails(tables_at: Path | str, receiver: Receiver) -> None:
    with opened(tables_at, rule(receiver)) as alerts:
        alerts.event("detected", "w1", at=NOON, text="low")
    with opened(tables_at, rule()) as alerts:
        assert alerts.deliver(NOON) == (0, 1)
        assert [alert.waiting for alert in alerts.history(1)] == [1]  # another configuration may know it
        assert alerts.deliver(NOON + timedelta(hours=25)) == (0, 1)
        assert [alert.failed for alert in alerts.history(1)] == [1]


def test_windows_that_close_at_once_raise_and_reset_in_turn(tables_at: Path | str) -> None:
    with opened(tables_at, rule()) as alerts:
        alerts.event("detected", "w1", at=NOON, text="low")
        alerts.recovered("w2", at=NOON, over=OVER)
        alerts.event("detected", "w3", at=NOON, text="low")
        assert states(alerts) == ["off topic 1 open", "off topic 1 recovered"]


def test_policies_are_kept_apart(tables_at: Path | str) -> None:
    with opened(tables_at, rule()) as banking, Alerts(tables_at, [rule()], policy="gardening") as gardening:
        assert banking.event("detected", "w1", at=NOON, text="low")
        assert gardening.event("detected", "w1", at=NOON, text="low")
        gardening.recovered("w2", at=NOON, over=OVER)
        assert (states(banking), states(gardening)) == (["off topic 1 open"], ["off topic 1 recovered"])
        with pytest.raises(UserError, match="no open alert 1 of gardening"):
            gardening.close_alert(1, at=NOON, by="ann")
        assert states(banking) == ["off topic 1 open"]
    if isinstance(tables_at, Path):
        assert stat.S_IMODE(tables_at.stat().st_mode) == 0o600


def test_a_policy_sends_its_own_notifications_alone(tables_at: Path | str, receiver: Receiver) -> None:
    rules = [[rule(receiver)], [rule()]]
    with (
        Alerts(tables_at, rules[0], policy="banking") as banking,
        Alerts(tables_at, rules[1], policy="gardening") as gardening,
    ):
        banking.event("detected", "w1", at=NOON, text="low")
        for hours in range(26):  # neither tried, nor put off, nor given up
            assert gardening.deliver(NOON + timedelta(hours=hours)) == (0, 0)
        assert banking.deliver(NOON) == (1, 0)
        assert [(alert.sent, alert.failed) for alert in banking.history(1)] == [(1, 0)]


def test_the_commands_show_close_test_and_send_alerts(tmp_path: Path, receiver: Receiver) -> None:
    settings = yaml.safe_load((ROOT / "configs/local.yaml").read_text())
    settings |= {"policy": str(ROOT / "configs/policies/banking.yaml"), "judge_prompts": str(ROOT / "configs")}
    rules = [{"name": "off topic", "events": ["detected"], "severity": "critical", "notify": [receiver.url]}]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings | {"alerts": rules}))

    def called(*arguments: str) -> Result:
        options = ["--state", str(tmp_path), "--config", str(tmp_path / "config.yaml")]
        return CliRunner().invoke(run.app, ["alerts", *arguments, *options])

    def listed() -> Result:
        return called()

    assert isinstance(called().exception, UserError)
    assert called("test").output.startswith("accepted: json://… of off topic")
    with opened(tmp_path / "alerts.db", *load_settings(tmp_path / "config.yaml").alerts) as alerts:
        alerts.event("detected", "window 1", at=NOON, text="the score is low")
    assert called("send").output == "1 notifications were sent, 0 failed\n"
    said = listed().output
    for expected in ("2026-03-01 12:00", "critical", "off topic", "open", "1/0/0", "1: window 1: the score is low."):
        assert expected in said
    assert all(len(line) <= 80 for line in said.splitlines())
    assert called("close", "1").output == "alert 1 is closed\n"
    assert "closed" in listed().output
    receiver.refuses = 5
    assert "not all were accepted" in str(called("test").exception)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"events": []}, "events"),
        ({"events": ["drifted"]}, "events"),
        ({"count": 0}, "count"),
        ({"period": "soon"}, "not a length of time"),
        ({"period": "0h"}, "period"),
        ({"notify": "json://x"}, "notify"),
    ],
)
def test_a_wrong_rule_is_reported_by_its_key(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    settings = yaml.safe_load((ROOT / "configs/local.yaml").read_text())
    one = {"name": "a", "events": ["detected"]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings | {"alerts": [one | wrong]}))
    with pytest.raises(UserError, match=said) as raised:
        load_settings(tmp_path / "config.yaml")
    assert "json://x" not in str(raised.value)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings | {"alerts": [one, one]}))
    with pytest.raises(UserError, match="two rules have the name 'a'"):
        load_settings(tmp_path / "config.yaml")
