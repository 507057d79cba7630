"""A rollout, stage by stage: who is compared on what, when it goes on, and when the champion has all again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from loopback import ROOT
from registries import made_registry
from word_judge import WordJudge, close_windows

from ontopic.config.policy import Policy
from ontopic.config.settings import Settings, load_settings
from ontopic.config.watch_settings import PromotionSettings
from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.window import Cut
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Record
from ontopic.registry.promotion_record import Entry
from ontopic.registry.promotions import ModelRegistry, open_registry
from ontopic.registry.record_check import check_record
from ontopic.registry.rollouts import Rollout, promote_or_roll_out, rollout_of, shown
from ontopic.state.workspace import Workspace, open_workspace
from ontopic.statistics.group_sequential import LEVEL
from ontopic.traffic.shadow import ShadowAnswer
from ontopic.traffic.store import TrafficStore
from ontopic.watch.actions import ActionStore
from ontopic.watch.canary import Canary
from ontopic.watch.gating_judge import GatingJudge
from ontopic.watch.journal import Journal
from ontopic.watch.rollout_stages import RolloutStages

START, HOUR = datetime(2026, 12, 1, tzinfo=UTC), timedelta(hours=1)
NEW, OLD = "2", "1"
CUT = Cut(length=HOUR, records=10, lateness=timedelta(minutes=1))
ANSWERS = {"p": "good", "f": "bad"}


@dataclass
class Trial:
    """Version 2 has passed the gate against version 1; a judge goes by one word of the answers. Stages last 3 hours."""

    settings: Settings
    policy: Policy
    workspace: Workspace
    traffic: TrafficStore
    windows: WindowStore
    actions: ActionStore
    judge: WordJudge = field(default_factory=WordJudge)
    said: list[str] = field(default_factory=list)
    hour: float = 0.0
    number: int = 0

    @property
    def registry(self) -> ModelRegistry:
        return open_registry(self.workspace, self.policy.registered_model)

    @property
    def rollout(self) -> Rollout | None:
        return rollout_of(self.entries)

    @property
    def entries(self) -> list[Entry]:
        return self.registry.record.entries(self.registry.name)

    def begin(self, rollout: str | list[int]) -> None:
        settings = PromotionSettings.model_validate({"rollout": rollout})
        facts = {"by_hand": False, "gate": "passed", "gate_sha256": "abc"}
        promote_or_roll_out(self.registry, NEW, settings=settings, by="the loop", why="better", at=START, facts=facts)

    def ask(self, pairs: str) -> None:
        """Requests of the next hour, each by what became of the old answer and of the new, as the stage has them."""
        rollout = self.rollout
        for i, (old, new) in enumerate(pairs.split()):
            self.number += 1
            record_id, at = f"r{self.number:04}", START + self.hour * HOUR + i * HOUR / 1000
            if rollout is not None and rollout.share == 0:
                self.traffic.add(self.record(record_id, ANSWERS[old], by=OLD, at=at))
                self.traffic.add_shadow(ShadowAnswer(record_id=record_id, model_version=NEW, answer=ANSWERS[new]))
            else:
                self.traffic.add(self.record(record_id, ANSWERS[new], by=NEW, at=at))
                (verdict,) = self.judge.judge([Record(question="q?", answer=ANSWERS[old])])
                self.actions.add_replays([record_id], OLD, verdicts=[verdict])

    def record(self, record_id: str, answer: str, *, by: str, at: datetime) -> Record:
        return Record(question="q?", answer=answer, id=record_id, model_version=by, asked_at=at)

    def look(self, hours: float = 1.1, dry_run: bool = False) -> list[str]:
        """What a watch that is started so much later does: the kinds of its actions."""
        self.hour += hours
        now = START + self.hour * HOUR
        close_windows(self.windows, self.traffic, judge=self.judge, cut=CUT, now=now)
        with Alerts(self.workspace.alerts, [], policy=self.policy.name) as alerts:
            gating = GatingJudge(self.settings.judge_choice, self.policy, workspace=self.workspace)
            gating.judge = self.judge  # type: ignore[misc]
            journal = Journal(self.actions, alerts, tell=self.said.append, dry_run=dry_run)
            stores = {"workspace": self.workspace, "traffic": self.traffic, "windows": self.windows, "judge": gating}
            done, _ = RolloutStages(self.settings, self.policy, **stores, journal=journal).hold(now)  # type: ignore[arg-type]
            back = Canary(self.settings, self.policy, **stores, journal=journal).hold(now)  # type: ignore[arg-type]
        self.hour = round(self.hour)
        return [each.kind for each in [*done, *([back] if back else [])]]


@pytest.fixture
def trial(tmp_path: Path, banking: Policy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    name = banking.registered_model
    made_registry(tmp_path / "mine", versions="12", name=name).ensure_champion(OLD)
    workspace = open_workspace(tmp_path / "mine")
    settings = load_settings(ROOT / "configs/local.yaml")
    settings = settings.model_copy(update={"watch": settings.watch.model_copy(update={"canary": 3 * HOUR})})
    with (
        TrafficStore(workspace.traffic, name) as traffic,
        WindowStore(workspace.windows, name) as windows,
        ActionStore(workspace.windows, name) as actions,
    ):
        policy = banking.model_copy(update={"least_records": 20})
        yield Trial(settings, policy, workspace, traffic, windows, actions)


def pairs(text: str, n: int) -> str:
    return " ".join([text] * n)


def test_stages_are_passed_one_by_one_up_to_the_promotion_and_its_canary(trial: Trial) -> None:
    trial.begin([5, 25, 100])
    assert trial.registry.champion() == OLD
    for share, then in ((5, ["stage"]), (25, ["stage", "promoted"])):
        assert trial.rollout is not None and trial.rollout.share == share
        trial.ask(pairs("pp", 21) + " fp")
        assert trial.look() == []
        trial.ask(pairs("pp", 5))
        assert trial.look(hours=3) == then
    assert trial.registry.champion() == NEW and trial.rollout is None
    promotion = trial.entries[-1]
    assert (promotion.kind, promotion.by, promotion.facts["gate_sha256"]) == ("promotion", "the rollout", "abc")
    told = promotion.facts["rollout"]
    assert isinstance(told, dict)
    assert [(stage["share"], stage["n"], stage["wins"], stage["losses"]) for stage in told["stages"]] == [
        (5, 27, 1, 0),
        (25, 27, 1, 0),
    ]
    assert [stage["level"] for stage in told["stages"]] == [pytest.approx(LEVEL / 3)] * 2
    trial.ask(pairs("pf", 12))
    assert trial.look() == ["rolled_back"]  # the stage of all conversations is the canary's
    back = trial.entries[-1].facts["canary"]
    assert isinstance(back, dict) and back["look"]["level"] == pytest.approx(LEVEL / 3)
    assert trial.registry.champion() == OLD
    assert not check_record(trial.registry.record, workspace=trial.workspace, registries=[trial.registry]).faults


@pytest.mark.parametrize("rollout", [[5, 100], "shadow"], ids=str)
def test_a_challenger_that_is_worse_goes_back_and_the_record_says_why(trial: Trial, rollout: str | list[int]) -> None:
    trial.begin(rollout)
    trial.ask(pairs("pf", 12) + " " + pairs("pp", 3))
    assert trial.look() == ["rolled_back"]
    assert (trial.rollout, trial.registry.champion()) == (None, OLD)
    assert shown(trial.registry, OLD) is None
    entry = trial.entries[-1]
    assert (entry.kind, entry.version, entry.facts["outcome"]) == ("rollout", NEW, "returned")
    stage = entry.facts["stage"]
    assert isinstance(stage, dict) and stage["canary"]["comparison"]["losses"] == 12
    assert trial.look() == []


def test_what_is_answered_unseen_is_judged_and_enters_no_window(trial: Trial) -> None:
    trial.begin("shadow")
    trial.ask(pairs("fp", 3) + " " + pairs("pp", 22))
    trial.traffic.add(trial.record("alone", "bad", by=OLD, at=START + HOUR / 2))  # dropped, as the service was busy
    assert trial.look() == []
    assert "on 25 questions of the traffic, version 2 passes +0.120 [" in trial.said[-1]
    assert {window.model_version for window in trial.windows.closed(-1)} == {OLD}
    assert trial.look(hours=3) == ["stage", "promoted"]
    assert trial.registry.champion() == NEW


def test_a_stage_goes_on_until_enough_was_compared(trial: Trial) -> None:
    trial.begin([5, 100])
    trial.ask(pairs("pp", 8))
    assert trial.look(hours=5) == []
    assert trial.look(hours=5) == []
    assert "goes on, as 8 of 20 requests were compared" in trial.said[-1]
    trial.ask(pairs("pp", 12))
    assert trial.look() == ["stage", "promoted"]


def test_a_dry_run_takes_no_stage_on_or_back(trial: Trial) -> None:
    trial.begin([5, 100])
    trial.ask(pairs("pf", 30))
    before = trial.rollout
    assert trial.look(dry_run=True) == [] and trial.rollout == before
    assert "30 lost, 0 won" in trial.said[-1]
    assert trial.actions.looks(NEW, START) == []
    assert trial.look() == ["rolled_back"]


def test_a_champion_that_was_moved_by_hand_ends_the_rollout_for_good(trial: Trial) -> None:
    trial.begin([5, 100])
    trial.registry.promote(NEW, by="ann", why="now")
    assert shown(trial.registry, NEW) is None
    trial.registry.roll_back("ann", why="no")
    assert (shown(trial.registry, OLD), trial.rollout) == (None, None)
    assert trial.look() == []


@pytest.mark.parametrize("at", ["begun", "passed"])
def test_what_a_process_that_ended_left_undone_is_done(trial: Trial, at: str) -> None:
    trial.begin([5, 100])
    registry = trial.registry
    if at == "passed":
        trial.ask(pairs("pp", 25))
        assert trial.look(hours=4) == ["stage", "promoted"]
        # As if it had ended between the entry and the promotion.
        lines = registry.record.kept.path.read_bytes().splitlines(keepends=True)
        registry.record.kept.path.write_bytes(b"".join(lines[:-1]))
        from registries import move_alias

        move_alias(registry, OLD)
        assert trial.look() == ["promoted"]
        assert trial.registry.champion() == NEW
    else:
        registry.note("ontopic.rollout", "none")
        trial.look()
        assert shown(registry, OLD) == trial.rollout is not None


def test_conversations_stay_with_the_version_that_has_them(trial: Trial) -> None:
    trial.begin([5, 25, 100])
    rollout = trial.rollout
    assert rollout is not None
    wider = rollout.model_copy(update={"stage": 1})
    names = [f"c{i}" for i in range(20_000)]
    few, more = ({name for name in names if each.answers(name)} for each in (rollout, wider))
    assert few < more
    assert 0.045 < len(few) / len(names) < 0.055 and 0.24 < len(more) / len(names) < 0.26
    other = rollout.model_copy(update={"key": "another"})
    assert len(few & {name for name in names if other.answers(name)}) < len(few) / 5


@pytest.mark.parametrize("wrong", [[25, 5, 100], [5, 25], [0, 100], [5, 5, 100], [], "half"], ids=str)
def test_shares_must_rise_to_all(wrong: object) -> None:
    with pytest.raises(ValueError, match="rollout"):
        PromotionSettings.model_validate({"rollout": wrong})
    assert PromotionSettings.model_validate({"rollout": [100]}).stages == (100,)
