"""A challenger that waits for approval, as `watch` sees it: real judge, real registry, a clock of the test's own."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow
import pytest
from loopback import ROOT

from ontopic.config.alert_settings import AlertSettings
from ontopic.config.policy import Policy
from ontopic.config.settings import Settings, load_settings
from ontopic.config.watch_settings import PromotionSettings
from ontopic.data.labelled import Question, load_questions
from ontopic.evaluation.gate import Decision, GateTest
from ontopic.judges.judge import Judge
from ontopic.monitoring.alerts import Alerts
from ontopic.records import Record
from ontopic.registry.promotion_record import PromotionRecord
from ontopic.registry.promotions import ModelRegistry, open_registry
from ontopic.registry.sign_off import SignOff
from ontopic.registry.tracking import open_tracking
from ontopic.registry.versions import register
from ontopic.state.whole_file import folder_sha256
from ontopic.state.workspace import Workspace, open_workspace
from ontopic.statistics.pairs import Comparison
from ontopic.statistics.rates import rate
from ontopic.statistics.scores import score
from ontopic.traffic.store import TrafficStore
from ontopic.watch.retraining import Improved, Improvement
from ontopic.watch.watcher import Watcher

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@dataclass
class Bank:
    """A bank whose traffic leaks every hour, and whose challengers wait for one person.

    Attributes:
        killed: whether `watch` is killed once a challenger waits.
    """

    workspace: Workspace
    policy: Policy
    settings: Settings
    questions: list[Question]
    hour: float = 0.0
    killed: bool = False
    trained: int = 0
    said: list[str] = field(default_factory=list)
    summary: str = ""

    @property
    def registry(self) -> ModelRegistry:
        return open_registry(self.workspace, self.policy.registered_model)

    @property
    def sign_off(self) -> SignOff:
        return SignOff(self.settings.promotion, self.policy, workspace=self.workspace, now=self.now)

    def now(self) -> datetime:
        return START + self.hour * HOUR

    def leak(self) -> None:
        with TrafficStore(self.workspace.traffic, self.policy.registered_model) as traffic:
            traffic.add_many(
                Record(
                    question=question.question,
                    answer="Sure! First gather what you need, then follow these three easy steps.",
                    id=f"{self.hour}-{i}",
                    model_version=self.registry.champion(),
                    asked_at=self.now() + i * HOUR / 61,
                )
                for i, question in enumerate(self.questions)
            )
        self.hour += 1

    def improve(self, wanted: Improvement) -> Improved:
        self.trained += 1
        folder = self.workspace.root / f"challenger {self.trained}"
        folder.mkdir()
        (folder / "weights").write_text(str(self.trained))
        challenger, weights = self.register(folder), folder_sha256(folder)
        gate = PromotionRecord(self.workspace.promotion_record).add(
            "gate",
            self.policy.registered_model,
            version=challenger,
            by="the gate",
            why="passed",
            facts={},
            at=self.now(),
        )
        self.sign_off.ask(
            challenger, gate=gate, champion=wanted.champion, weights_sha256=weights, trained_by="the service"
        )
        if self.killed:
            raise KeyboardInterrupt
        return Improved(challenger=challenger, promoted=False, decision=decision(self.policy))

    def register(self, folder: Path) -> str:
        name, digest = self.policy.registered_model, folder_sha256(folder)
        with mlflow.start_run() as run:
            return register(
                name,
                folder,
                digest=digest,
                run_id=run.info.run_id,
                workspace=self.workspace,
                tags={},
                challenger=self.trained > 0,
            ).version

    def turn(self, dry_run: bool = False) -> list[tuple[str, str]]:
        """Watch once, a few minutes after the hour."""
        self.hour += 0.1
        watcher = Watcher(
            self.settings,
            self.policy,
            workspace=self.workspace,
            improve=self.improve,
            tell=self.said.append,
            now=self.now,
            since=START,
            dry_run=dry_run,
        )
        try:
            done = watcher.turn()
            self.summary = watcher.in_words(done)
        finally:
            watcher.close()
            self.hour = round(self.hour + 0.4)
        return [(action.kind, action.version) for action in done.actions]

    def alerts(self) -> list[str]:
        with Alerts(self.workspace.alerts, self.settings.alerts, policy=self.policy.name) as alerts:
            return [alert.text for alert in alerts.history(9)]


def decision(policy: Policy) -> Decision:
    scores = score([])
    return Decision(
        passed=True,
        tests=[GateTest(name="score", passed=True, description="fine")],
        champion=scores,
        challenger=scores,
        comparison=Comparison(difference=0.1, low=0.0, high=0.2, p_value=0.5, wins=2, losses=1, n=9),
        quality=rate(0, 0),
        preference=None,
        limits=policy.gate,
        report=Path("gate.html"),
    )


@pytest.fixture(scope="module")
def shared(
    local_judge: Judge, session_state: Path, small_banking: Policy, tmp_path_factory: pytest.TempPathFactory
) -> Bank:
    state = tmp_path_factory.mktemp("watch")
    shutil.copytree(session_state / "judges", state / "judges")
    workspace = open_workspace(state)
    open_tracking(workspace, small_banking.registered_model)
    settings = load_settings(ROOT / "configs/local.yaml")
    settings = settings.model_copy(
        update={
            "monitoring": settings.monitoring.model_copy(update={"window": HOUR}),
            "watch": settings.watch.model_copy(update={"cooldown": 3 * HOUR, "retrainings_a_day": 99}),
            "promotion": PromotionSettings(approval="one", expires=12 * HOUR),
            "alerts": [AlertSettings(name="to sign", events=["waiting"])],
        }
    )
    questions = [
        q for q in load_questions(small_banking.questions, split="evaluation") if not q.kind and not q.in_scope
    ]
    bank = Bank(workspace, small_banking, settings, questions[:60])
    (workspace.root / "base").mkdir()
    (workspace.root / "base" / "weights").write_text("base")
    first = bank.register(workspace.root / "base")
    bank.registry.promote(first, by="the loop", why="the first", at=START - 9 * HOUR)
    return bank


# One story, told in order: each test goes on where the one before it ended.


def test_what_passes_the_gate_waits_and_a_person_hears_of_it(shared: Bank) -> None:
    shared.leak()
    assert shared.turn() == [("waiting", "2")]
    assert (shared.registry.champion(), shared.trained) == ("1", 1)
    assert shared.said[-1].startswith("Waiting: version 2: the gate: all tests passed; gate.html; it waits for python")
    (alert,) = shared.alerts()
    assert "version 2, version 1, 2026" in alert and 'python run.py approve 2 --why "...", or reject' in alert


def test_watch_goes_on_and_says_what_waits_and_trains_no_other(shared: Bank) -> None:
    for _ in range(5):  # the cool-down is long over
        shared.leak()
    assert shared.turn() == []
    assert sum(": detected, uncorrected" in line for line in shared.said) == 6
    assert shared.trained == 1
    said = (
        "version 2 passed the gate against version 1 and waits for one person who did not train it to approve it until"
    )
    assert shared.said[-1].startswith(f"Not retrained: {said} 2026-03-01 13:06 UTC: python run.py approve 2")
    assert said in shared.summary and "nothing to do" not in shared.summary
    assert len(shared.alerts()) == 1


def test_a_dry_run_only_says_it(shared: Bank) -> None:
    assert shared.turn(dry_run=True) == []
    assert "Not retrained: version 2 passed" in shared.said[-1]
    shared.hour = 14
    told = len(shared.said)
    assert shared.turn(dry_run=True) == [("would_retrain", "1")]  # it has expired, which a dry run does not write down
    assert not any("waits for approval no longer" in line for line in shared.said[told:])


def test_what_expires_is_said_and_cools_down(shared: Bank) -> None:
    shared.leak()
    assert shared.turn() == []
    assert "Version 2 waits for approval no longer: nobody had decided by 2026-03-01 13:06 UTC" in "".join(shared.said)
    assert "it cools down until" in shared.said[-1]
    shared.hour += 4
    shared.leak()
    assert shared.turn() == [("waiting", "3")]


def test_what_is_rejected_cools_down(shared: Bank) -> None:
    shared.hour += 4
    shared.sign_off.reject("3", by="bob", why="rude", account="bob")
    shared.leak()
    assert shared.turn() == []
    assert "it cools down until" in shared.said[-1]
    shared.hour += 4
    shared.leak()
    assert shared.turn() == [("waiting", "4")]


def test_a_watch_that_was_killed_once_its_challenger_waits_does_not_train_again(shared: Bank) -> None:
    shared.sign_off.reject("4", by="bob", why="rude", account="bob")
    shared.hour += 4
    shared.leak()
    shared.killed = True
    with pytest.raises(KeyboardInterrupt):
        shared.turn()
    shared.killed = False
    assert shared.turn() == [("waiting", "5")]
    assert shared.turn() == []
    shared.sign_off.reject("5", by="bob", why="rude", account="bob")
    shared.leak()
    assert (shared.turn(), shared.trained) == ([], 4)  # it cools down, and the killed retraining is not taken up


def test_what_was_approved_and_not_promoted_is_promoted_by_the_next_turn(shared: Bank) -> None:
    shared.hour += 4
    shared.leak()
    assert shared.turn() == [("waiting", "6")]
    (wait,) = [wait for wait, why in shared.sign_off.waiting() if why is None]
    PromotionRecord(shared.workspace.promotion_record).add(
        "approval",
        shared.policy.registered_model,
        version="6",
        by="bob",
        why="seen",
        facts={"waiting": wait.entry.sha256},
        at=shared.now(),
    )
    assert shared.turn() == [("promoted", "6")]
    assert shared.said[-1] == "Promoted: version 6: approved by bob"
    assert shared.registry.champion() == "6"
    assert shared.turn() == []
