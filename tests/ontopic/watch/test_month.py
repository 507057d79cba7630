"""A month of the automatic loop with the real model, judge, training and gate, on a clock of the test's own.

``pytest -m slow tests/ontopic/watch/test_month.py -s`` shows it day by day. It takes about half an hour on 2 cores, of
which the loop that makes the first champion takes 12 minutes. ``ONTOPIC_MONTH_STATE`` names a state folder that has
one, which is changed.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from loopback import ROOT

from ontopic.config.policy import Policy, load_policy
from ontopic.config.settings import Settings, load_settings
from ontopic.data.labelled import load_questions
from ontopic.models.generation import generate
from ontopic.models.loading import load
from ontopic.monitoring.chart import Chart
from ontopic.monitoring.window import Window
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Record
from ontopic.registry.promotions import ModelRegistry, open_registry
from ontopic.registry.tracking import open_tracking
from ontopic.registry.versions import find
from ontopic.state.workspace import Workspace, open_workspace
from ontopic.traffic.store import TrafficStore
from ontopic.watch.actions import Action
from ontopic.watch.retraining import Improved, Improvement, split
from ontopic.watch.watcher import Watcher

DAY = timedelta(days=1)
A_DAY = 120
# Subjects that the first champion answers although they are out of scope: what starts to come in on the tenth day.
NEW_TOPICS = (  # noqa: SIM905
    "tax_filing gift_and_greeting_cards id_and_library_cards travel_visas_and_documents my_documents_and_ids "
    "government_benefits payroll_and_hr pension_and_retirement_planning insurance_claims_and_quotes crypto_trading "
    "history_of_money transfers_elsewhere pins_and_passwords_elsewhere my_parcel_and_shopping my_contacts_and_calls "
    "my_email_and_messages programming"
).split()


@dataclass
class Month:
    """The days so far."""

    settings: Settings
    policy: Policy
    workspace: Workspace
    start: datetime
    day: int = 0
    clock: datetime = field(init=False)
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    answers: dict[tuple[str, str], Any] = field(default_factory=dict)
    windows: list[Window] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = self.start
        usual = load_questions(self.policy.questions, split="evaluation")
        self.inside = [q.question for q in usual if q.in_scope][:150]
        self.outside = [q.question for q in usual if not q.in_scope][:150]
        others = load_questions(self.policy.questions, split="judge")
        self.new = [q.question for q in others if q.intent in NEW_TOPICS and not q.in_scope]

    @property
    def registry(self) -> ModelRegistry:
        return open_registry(self.workspace, self.policy.registered_model)

    def champion(self) -> str:
        return self.registry.champion()

    def ask(self, drifted: bool) -> None:
        """A day's traffic: a third in scope; of the rest, once it has drifted, most of the new topics."""
        wanted = self.chance.choices(self.inside, k=A_DAY // 3)
        new = A_DAY // 2 if drifted else 0
        wanted += self.chance.choices(self.outside, k=A_DAY - A_DAY // 3 - new) + self.chance.choices(self.new, k=new)
        self.chance.shuffle(wanted)
        version = self.champion()
        missing = [q for q in dict.fromkeys(wanted) if (version, q) not in self.answers]
        if missing:
            model = load(find(self.policy.registered_model, version, workspace=self.workspace).folder)
            conversations = [[{"role": "user", "content": question}] for question in missing]
            found = generate(model, conversations, max_new_tokens=self.settings.traffic.max_tokens, slots=32)
            self.answers |= {(version, q): answer for q, answer in zip(missing, found, strict=True)}
        records = []
        for i, question in enumerate(wanted):
            answer = self.answers[version, question]
            at = self.start + self.day * DAY + (i + 0.5) * DAY / A_DAY
            records.append(
                Record(
                    question=question,
                    answer=answer.text,
                    id=f"day{self.day}-{i}",
                    model_version=version,
                    asked_at=at,
                    latency_s=0.2,
                    prompt_tokens=answer.prompt_tokens,
                    completion_tokens=answer.completion_tokens,
                    finished=answer.finished,
                )
            )
        with TrafficStore(self.workspace.traffic, self.policy.registered_model) as traffic:
            traffic.add_many(records)

    def live(self, days: int, drifted: bool) -> list[Action]:
        """So many days pass, each watched a little after its end."""
        from pipelines.retrain import improve_on_traffic

        done = []
        for _ in range(days):
            self.ask(drifted)
            self.day += 1
            self.clock = self.start + self.day * DAY + timedelta(minutes=5)
            improve = improve_on_traffic(self.settings, self.policy, workspace=self.workspace)
            watcher = Watcher(
                self.settings,
                self.policy,
                workspace=self.workspace,
                improve=improve,
                tell=self.say,
                now=lambda: self.clock,
                since=self.start,
            )
            turn = watcher.turn()
            watcher.close()
            self.windows += turn.closed
            done += turn.actions
        self.actions += done
        return done

    def say(self, line: str) -> None:
        print(f"day {self.day:2}  {line}", flush=True)

    def newest_chart(self) -> Chart:
        """After the last window."""
        result = self.windows[-1].result
        assert result and result.chart
        return result.chart

    def judged(self) -> int:
        """Records of the windows so far that the judge could judge."""
        return sum(window.result.scores.guardrail_score.n for window in self.windows if window.result)

    def statuses(self) -> list[str]:
        return [window.result.status for window in self.windows if window.result]


def train_badly(month: Month, champion: str) -> Improved:
    """The outcome of a challenger that is trained for one step, so that it has learned nothing."""
    from ontopic.judges.cards.calibration import gate_card_of
    from ontopic.judges.opening import open_judge
    from pipelines.retrain import improve_on_traffic

    settings, policy, workspace = month.settings, month.policy, month.workspace
    broken = settings.model_copy(update={"training": settings.training.model_copy(update={"max_steps": 1})})
    name = policy.registered_model
    with WindowStore(workspace.windows, name) as store, TrafficStore(workspace.traffic, name) as traffic:
        judged = store.judged(store.closed(3, champion), traffic)
    judge = open_judge(settings.judge_choice, policy, workspace=workspace)
    train, _ = split(judged, settings.watch.training_records)
    card = gate_card_of(judge, policy, workspace=workspace)
    wanted = Improvement(champion=champion, judged=train, held_out=[], card=card, at=month.clock)
    return improve_on_traffic(broken, policy, workspace=workspace)(wanted)


@pytest.mark.slow
def test_in_a_month_new_topics_are_learned_and_what_is_worse_is_refused_or_rolled_back(tmp_path: Path) -> None:
    given = os.environ.get("ONTOPIC_MONTH_STATE")
    state = Path(given) if given else tmp_path / "state"
    if not given:
        subprocess.run([sys.executable, str(ROOT / "run.py"), "--state", str(state)], check=True)
    settings = load_settings(ROOT / "configs/local.yaml")
    monitoring = settings.monitoring.model_copy(update={"window": DAY})
    settings = settings.model_copy(update={"monitoring": monitoring})
    policy = load_policy(settings.policy)
    from pipelines.stack import open_stack

    _, workspace = open_stack(open_workspace(state))
    open_tracking(workspace, policy.registered_model)
    history = open_registry(workspace, policy.registered_model).promotions()
    begun = max([each.at for each in history], default=datetime.now(UTC))
    start = datetime(begun.year, begun.month, begun.day, tzinfo=UTC) + 2 * DAY
    month = Month(settings, policy, workspace, start)
    first = month.champion()

    month.say("healthy")
    assert month.live(9, drifted=False) == []
    assert len(month.statuses()) == 9
    assert "detected" not in month.statuses()
    chart = month.newest_chart()
    # Not by luck of the seed: the score since the promotion is over the threshold, and the chart far from its limit.
    assert (chart.n, chart.score.value > chart.healthy) == (month.judged(), True)
    assert chart.n >= 1000 and chart.statistic < 0.1 * chart.limit

    month.say("new off-topic questions arrive")
    before = len(month.windows)
    while not (done := month.live(1, drifted=True)) or done[-1].kind == "refused":
        assert month.day < 16, "nothing was promoted"
    assert "detected" in month.statuses()[before:]
    assert done[-1].kind == "promoted"
    promoted = month.champion()
    assert promoted not in (first, "1")
    month.say("the new champion serves them")
    after = month.live(4, drifted=True)  # a bad day may have it retrained once more
    assert {action.kind for action in after}.isdisjoint({"failed", "rolled_back"})
    promoted = month.champion()
    assert promoted not in (first, "1")

    month.say("an engineer trains a challenger with a setting that teaches it nothing")
    refused = train_badly(month, promoted)
    assert not refused.promoted
    open_tracking(workspace, policy.registered_model)
    assert month.champion() == promoted
    month.say(
        f"version {refused.challenger} is refused: "
        + "; ".join(test.description for test in refused.decision.tests if not test.passed)
    )

    month.say("somebody promotes the base model by hand")
    month.registry.promote("1", by="mallory", why="it was nicer to talk to", at=month.clock + timedelta(minutes=1))
    (back,) = month.live(1, drifted=True)
    assert (back.kind, back.version) == ("rolled_back", "1")
    assert month.champion() == promoted

    month.say("and the rest of the month")
    rest = month.live(max(0, 30 - month.day), drifted=True)
    assert {action.kind for action in rest}.isdisjoint({"failed", "rolled_back"})
    assert len(month.windows) == month.day >= 30  # a window a day
    for each in month.registry.promotions():
        print(f"{each.at:%Y-%m-%d %H:%M}  {each.before or '-'} -> {each.version}  {each.by}: {each.why}")
    print(" ".join(month.statuses()))
