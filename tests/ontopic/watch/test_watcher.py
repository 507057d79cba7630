"""The automatic loop on stored traffic, with the real judge, the real registry and a clock of the test's own."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import pytest
from filelock import FileLock
from loopback import ROOT
from replayed import well_answered
from typer.testing import CliRunner, Result

import run
from ontopic.commands.options import Project
from ontopic.commands.status import screen
from ontopic.commands.where_it_stands import where_it_stands
from ontopic.config.policy import GateLimits, Policy
from ontopic.config.settings import Settings, load_settings
from ontopic.data.labelled import load_questions
from ontopic.errors import UserError
from ontopic.evaluation.gate import Decision, GateTest
from ontopic.judges.judge import Judge
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Record
from ontopic.registry.promotions import ModelRegistry, open_registry
from ontopic.registry.tracking import open_tracking
from ontopic.registry.versions import register
from ontopic.state.workspace import Workspace, open_workspace
from ontopic.statistics.pairs import Comparison
from ontopic.statistics.rates import rate
from ontopic.statistics.scores import score
from ontopic.traffic.store import TrafficStore
from ontopic.watch.actions import ActionStore
from ontopic.watch.retraining import Improved, Improvement
from ontopic.watch.watcher import Watcher

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def decision(passed: bool) -> Decision:
    scores = score([])
    return Decision(
        passed=passed,
        tests=[GateTest(name="score", passed=passed, description="the lower bound 0.7000 is not at least 0.8")],
        champion=scores,
        challenger=scores,
        comparison=Comparison(difference=0.1, low=0.0, high=0.2, p_value=0.5, wins=2, losses=1, n=9),
        quality=rate(0, 0),
        preference=None,
        limits=GateLimits(guardrail_score=0.8, over_refusal=0.2, leak=0.2, improvement=0.0),
        report=Path("gate.html"),
    )


@dataclass
class Bank:
    """A bank's traffic and registry, and what the automatic loop makes of them.

    Attributes:
        hour: of the clock, since the start.
        passes: what the gate says of the next challenger.
        older: whether the service that stores the traffic is of a release that names no registered model.
    """

    workspace: Workspace
    policy: Policy
    settings: Settings
    questions: dict[bool, list[Any]]
    hour: float = 0.0
    passes: bool = True
    older: bool = False
    asked_for: list[Improvement] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    summary: str = ""
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def registry(self) -> ModelRegistry:
        return open_registry(self.workspace, self.policy.registered_model)

    def now(self) -> datetime:
        return START + timedelta(hours=self.hour)

    def ask(self, n: int, in_scope: bool, answer: Callable[[Any], str]) -> None:
        """``n`` questions of the next hour, answered by the champion."""
        version = self.registry.champion()
        with TrafficStore(self.workspace.traffic, None if self.older else self.policy.registered_model) as traffic:
            rows = []
            for i in range(n):
                number = next(self.numbers)
                question = self.questions[in_scope][number % len(self.questions[in_scope])]
                at = self.now() + i * HOUR / (n + 1)
                rows.append(
                    Record(
                        question=question.question,
                        answer=answer(question),
                        in_scope=None,
                        id=f"r{number}",
                        model_version=version,
                        asked_at=at,
                    )
                )
            traffic.add_many(rows)

    def another_assistants_hour(self) -> None:
        """Questions that a second policy's assistant, whose version has the same number, got wrong at the same time."""
        with TrafficStore(self.workspace.traffic, "ontopic-travel") as traffic:
            traffic.add_many(
                Record(
                    question=f"travel question {i}?",
                    answer="Sure! First gather what you need.",
                    model_version=self.registry.champion(),
                    asked_at=self.now() + i * HOUR / 61,
                )
                for i in range(60)
            )

    def good_hour(self) -> None:
        self.ask(30, True, lambda question: question.reference)
        self.ask(30, False, lambda question: self.policy.refusal)
        self.hour += 1

    def leaking_hour(self) -> None:
        self.ask(15, True, lambda question: question.reference)
        self.ask(45, False, lambda question: "Sure! First gather what you need, then follow these three easy steps.")
        self.hour += 1

    def refusing_hour(self) -> None:
        """Questions in scope that version 1 answered well where it was asked them in a canary stretch."""
        asked, known = well_answered(self.workspace, self.policy.registered_model, version="1"), self.questions
        self.questions = known | {True: [question for question in known[True] if question.question in asked]}
        self.ask(60, True, lambda question: self.policy.refusal)
        self.questions = known
        self.hour += 1

    def improve(self, wanted: Improvement) -> Improved:
        self.asked_for.append(wanted)
        version = self.register(f"challenger {len(self.asked_for)}")
        if self.passes:
            self.registry.promote(version, by="the loop", why="passed", at=wanted.at)
        return Improved(challenger=version, promoted=self.passes, decision=decision(self.passes))

    def register(self, text: str, folder: Path | None = None) -> str:
        if folder is None:
            folder = self.workspace.root / text
            folder.mkdir()
            (folder / "weights").write_text(text)
        with mlflow.start_run() as run:
            name = self.policy.registered_model
            return register(
                name, folder, digest=text, run_id=run.info.run_id, workspace=self.workspace, tags={}
            ).version

    def turn(self, dry_run: bool = False) -> list[tuple[str, str]]:
        """Watch once, a few minutes after the hour; returns what was done, to which version."""
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
        done = watcher.turn()
        self.summary = watcher.in_words(done)
        watcher.close()
        self.hour = round(self.hour + 0.4)
        return [(action.kind, action.version) for action in done.actions]

    def champion(self) -> str:
        return self.registry.champion()


@pytest.fixture(scope="module")
def shared(
    model_folder: Path,
    local_judge: Judge,
    session_state: Path,
    small_banking: Policy,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bank:
    state = tmp_path_factory.mktemp("watch")
    shutil.copytree(session_state / "judges", state / "judges")
    workspace = open_workspace(state)
    open_tracking(workspace, small_banking.registered_model)
    settings = load_settings(ROOT / "configs/local.yaml")
    watch = {"cooldown": 3 * HOUR, "retrainings_a_day": 2, "canary": 12 * HOUR, "training_records": 200}
    settings = settings.model_copy(
        update={
            "monitoring": settings.monitoring.model_copy(update={"window": HOUR}),
            "watch": settings.watch.model_copy(update=watch),
            "model": settings.model.model_copy(update={"max_new_tokens": 16}),
        }
    )
    rows = load_questions(small_banking.questions, split="evaluation")
    rows = [q for q in rows if not q.kind and (q.reference or not q.in_scope)]
    questions = {kind: [row for row in rows if row.in_scope is kind] for kind in (True, False)}
    policy = small_banking.model_copy(update={"least_records": 20})  # an hour of these tests has 40
    bank = Bank(workspace, policy, settings, questions)
    first = bank.register("base", model_folder)
    bank.registry.promote(first, by="the loop", why="the first", at=START - HOUR)
    return bank


def test_records_that_fill_no_window_are_said(shared: Bank, tmp_path: Path) -> None:
    monitoring = shared.settings.monitoring.model_copy(update={"window": None, "window_records": 100})
    settings = shared.settings.model_copy(update={"monitoring": monitoring})
    shutil.copy(shared.workspace.mlflow_file, tmp_path)
    bank = Bank(open_workspace(tmp_path), shared.policy, settings, shared.questions)
    bank.ask(80, True, lambda question: question.reference)
    bank.hour += 1
    assert bank.turn(dry_run=True) == []
    assert (
        bank.summary == "80 new records; 0 windows closed; 80 of version 1 wait, 20 more fill a window; nothing to do"
    )


# One story, told in order: each test goes on where the one before it ended.


def test_a_healthy_hour_changes_nothing(shared: Bank) -> None:
    shared.another_assistants_hour()
    shared.good_hour()
    assert shared.turn() == []
    assert ": ok, uncorrected guardrail score" in shared.said[-1]
    assert shared.summary.startswith("60 new records; 1 window closed; 0 of version 1 wait for their window of 1:00:00")
    assert shared.turn() == []  # nothing new: nothing is closed twice
    assert sum(": ok," in line for line in shared.said) == 1
    assert shared.summary.startswith("0 new records; 0 windows closed; ")
    assert shared.summary.endswith("the newest window, version 1, 2026-03-01 00:00:00, is ok; nothing to do")


def test_a_dry_run_says_what_it_would_do_once(shared: Bank) -> None:
    shared.hour = 3
    shared.another_assistants_hour()
    shared.leaking_hour()
    assert shared.turn(dry_run=True) == [("would_retrain", "1")]
    assert "2 alerts are open" in shared.summary  # on the score and on leak
    assert "nothing to do" not in shared.summary
    assert shared.turn(dry_run=True) == []
    assert sum(line.startswith("Would retrain: version 1: ") for line in shared.said) == 2  # once in each process
    assert shared.champion() == "1"
    assert shared.asked_for == []


def test_what_is_detected_is_retrained_on_it_and_promoted(shared: Bank) -> None:
    assert shared.turn() == [("promoted", "2")]
    assert shared.champion() == "2"
    (wanted,) = shared.asked_for
    assert wanted.champion == "1"
    assert len(wanted.judged.records) == len(wanted.judged.verdicts)
    assert {record.model_version for record in wanted.judged.records} == {"1"}
    assert {record.registered_model for record in wanted.judged.records} == {shared.policy.registered_model}
    assert not any("travel" in question.question for question in wanted.held_out)
    held_out = {question.question for question in wanted.held_out}
    trained = {record.question for record in wanted.judged.records}
    assert not held_out & trained
    assert 10 < len(held_out) < len(trained)
    assert {question.in_scope for question in wanted.held_out} == {True, False}
    last = shared.registry.promotions()[-1]
    assert (last.by, last.before) == ("the loop", "1")


def test_it_cools_down(shared: Bank) -> None:
    before, shared.older = len(shared.asked_for), True
    shared.leaking_hour()
    shared.older = False
    assert shared.turn() == []
    assert "it cools down until" in shared.said[-1]
    assert len(shared.asked_for) == before


def test_a_challenger_that_fails_is_refused_and_the_budget_ends(shared: Bank) -> None:
    shared.passes = False
    shared.hour += 4
    shared.leaking_hour()
    assert shared.turn() == [("refused", "3")]
    assert "the lower bound 0.7000 is not at least 0.8" in shared.said[-1]
    assert shared.champion() == "2"
    shared.hour += 4
    shared.leaking_hour()
    assert shared.turn() == []
    assert "the budget of 2 retrainings a day is used up" in shared.said[-1]


def test_a_promotion_that_makes_it_worse_is_rolled_back(shared: Bank) -> None:
    shared.registry.roll_back("ann", why="start anew", at=shared.now())
    bad = shared.register("a bad one")
    shared.registry.promote(bad, by="bob", why="looks fine to me", at=shared.now())
    shared.refusing_hour()
    assert shared.turn() == [("rolled_back", bad)], shared.said[-4:]
    assert shared.champion() == "1"
    last = shared.registry.promotions()[-1]
    assert (last.by, last.rollback, last.before) == ("the canary", True, bad)
    assert f"version {bad} passes -" in last.why
    assert "against version 1" in last.why
    assert shared.turn() == []


def test_a_promotion_that_does_no_harm_stays(shared: Bank) -> None:
    fine = shared.register("a fine one")
    shared.registry.promote(fine, by="ann", why="better", at=shared.now())
    shared.good_hour()
    assert shared.turn() == []
    assert "it stays" in shared.said[-1]
    told, shared.passes = len(shared.said), True
    shared.hour += 20  # the canary stretch is over
    shared.refusing_hour()
    assert shared.turn() == [("promoted", str(int(fine) + 1))]
    (stayed,) = [line for line in shared.said[told:] if line.startswith("Stayed: ")]
    assert "on 60 questions of the traffic" in stayed and ": it stays. " in stayed
    assert not any("Canary" in line for line in shared.said[told:])


def test_a_failed_retraining_is_told_and_cools_down(shared: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(wanted: Improvement) -> Improved:
        raise UserError("the judge may not gate")

    shared.hour += 30
    shared.leaking_hour()
    monkeypatch.setattr(shared, "improve", fail)
    assert shared.turn() == [("failed", shared.champion())]
    assert shared.turn() == []
    assert sum("it cools down" in line for line in shared.said[-3:]) == 1


def test_a_retraining_that_was_killed_is_taken_up(shared: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(wanted: Improvement) -> Improved:
        raise KeyboardInterrupt

    shared.hour += 30
    shared.leaking_hour()
    with monkeypatch.context() as patch:
        patch.setattr(shared, "improve", killed)
        with pytest.raises(KeyboardInterrupt):
            shared.turn()
    before = len(shared.asked_for)
    ((kind, version),) = shared.turn()
    assert (kind, len(shared.asked_for)) == ("promoted", before + 1)
    assert shared.champion() == version
    with ActionStore(shared.workspace.windows, shared.policy.registered_model) as actions:
        today = [a.kind for a in actions.newest(100) if a.at > shared.now() - 24 * HOUR]
    assert today == ["retraining", "promoted"]  # the budget counts it once


def test_one_screen_shows_it_all(shared: Bank, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    Console(width=80).print(screen(where_it_stands(Project(shared.settings, shared.policy, shared.workspace))))
    said = capsys.readouterr().out
    for expected in ("champion", "does not run; start it with", "detected", "ok", "promoted (version", "[0."):
        assert expected in said
    assert all(len(line) <= 80 for line in said.splitlines())


def test_the_commands_watch_show_promote_and_roll_back(shared: Bank) -> None:
    def called(*arguments: str) -> Result:
        return CliRunner().invoke(run.app, [*arguments, "--state", str(shared.workspace.root)])

    champion = shared.champion()
    said = called("promote", "1", "--why", "older is better\n", "--by", "ann").output
    assert said.startswith(f"version 1 is the champion in place of {champion}, by ann; its gate: not run\non record as")
    last = shared.registry.promotions()[-1]
    assert (last.by, last.why) == ("ann", "older is better")
    assert "by ann: older is better" in " ".join(called("status").output.split())
    assert f"version {champion} is the champion again" in called("rollback", "--why", "it is not").output
    for wrong, told in (
        (("promote", champion, "--why", "again"), "is the champion already"),
        (("promote", "99", "--why", "new"), "has no version"),
        (("promote", "1", "--why", " "), "--why is empty"),
        (("watch", "--once", "--since", "soon"), "is not a length of time"),
    ):
        assert told in str(called(*wrong).exception)
    with FileLock(shared.workspace.root / "run.lock"):
        assert "another run or watch uses" in str(called("watch", "--once").exception)


def test_pruned_traffic_takes_its_verdicts_along(shared: Bank) -> None:
    with (
        WindowStore(shared.workspace.windows, shared.policy.registered_model) as windows,
        TrafficStore(shared.workspace.traffic, shared.policy.registered_model) as traffic,
    ):
        assert windows.judged(windows.closed(50), traffic).records
    command = ["traffic", "prune", "--keep", "0", "--state", str(shared.workspace.root)]
    assert "0 are left" in CliRunner().invoke(run.app, command).output
    with contextlib.closing(sqlite3.connect(shared.workspace.windows)) as connection:
        assert connection.execute("SELECT count(*) FROM members").fetchone() == (0,)
