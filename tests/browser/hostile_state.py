"""A state folder with a stranger's text wherever there is text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from browser.made_pages import closed_window, judged
from registries import made_registry

from ontopic.config.alert_settings import AlertSettings
from ontopic.config.policy import Policy
from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.window import Cut
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Feedback, Record
from ontopic.state.workspace import Workspace
from ontopic.traffic.store import TrafficStore
from ontopic.watch.actions import Action, ActionStore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
_LATER = NOON + timedelta(hours=9)


def hostile_state(root: Path, policy: Policy, text: str) -> Workspace:
    """Registry, promotion record, traffic, thumbs, windows, alerts and actions of the policy, all made of a text."""
    model = policy.registered_model
    registry = made_registry(root, name=model)
    workspace = Workspace(root=root, mlflow_uri=f"sqlite:///{root / 'mlflow.db'}")
    tests = [{"name": text, "passed": False, "description": text}]
    facts = {"gate": "failed", "against": text, "decision": {"tests": tests}}
    registry.enter("gate", "2", by=text, why=text, facts=facts)
    registry.promote("2", by=text, why=text, at=NOON)
    traffic = judged(12, 6, lambda i: f"{i} {text}", model=f"2 {text}", judge_id=text)
    with TrafficStore(workspace.traffic, model) as store:
        store.add_many(traffic.records)
        store.add_feedback(Feedback(record_id="1", thumb="down", comment=text, correction=text, by=text, given_at=NOON))
        with WindowStore(workspace.windows, model) as windows:
            cut = Cut(length=timedelta(hours=1), records=10, lateness=timedelta(0))
            windows.take_in(store, cut, now=_LATER)
            for window in windows.due(cut, _LATER):
                result = closed_window(policy, traffic, name=text).result
                assert result is not None
                windows.close_window(window, result, now=_LATER)
    with TrafficStore(workspace.traffic, f"other {text}") as other:
        other.add(Record(question=text, answer=text, id="other", model_version=text))
    with Alerts(workspace.alerts, [AlertSettings(name=text[:60], events=["detected"])], policy=policy.name) as alerts:
        for number in range(3):
            raised = alerts.event("detected", f"{text} {number}", at=NOON, text=text)
            if raised and number < 2:
                alerts.close_alert(raised[0].id, at=NOON, by=text)
    with ActionStore(workspace.windows, model) as actions:
        actions.add(Action(at=NOON, kind="refused", version=text, subject=text, why=text))
    return workspace
