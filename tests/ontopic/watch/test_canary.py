"""The canary stretch, look by look: what is counted, what is kept, and when a champion goes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from loopback import ROOT
from word_judge import WordJudge, close_windows

from ontopic.config.model_settings import ModelSettings
from ontopic.config.policy import Policy
from ontopic.config.settings import Settings, load_settings
from ontopic.models.generation import generate
from ontopic.models.loading import load
from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.window import Cut
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Judged, Message, Parameters, Record, Verdict
from ontopic.registry.promotion_record import PromotionRecord
from ontopic.registry.promotions import ModelRegistry, open_registry
from ontopic.state.workspace import Workspace, open_workspace
from ontopic.traffic.store import TrafficStore
from ontopic.watch.actions import ActionStore
from ontopic.watch.canary import Canary
from ontopic.watch.canary_evidence import CanaryEvidence, evidence_of
from ontopic.watch.gating_judge import GatingJudge
from ontopic.watch.journal import Journal
from ontopic.watch.replays import Replays, answered_by

START, HOUR = datetime(2026, 12, 1, tzinfo=UTC), timedelta(hours=1)
NEW, OLD = "2", "1"
CUT = Cut(length=HOUR, records=10, lateness=timedelta(minutes=1))
ANSWERS = {"p": "good", "f": "bad", "u": "hm"}  # pass, fail, unjudged


@dataclass
class Stretch:
    """Version 2 has just taken version 1's place; a judge goes by one word of the answers.

    What version 1 answers is given: it stands among the verdicts that are kept of it.
    """

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

    def ask(self, pairs: str, conversation: str = "") -> None:
        """Questions of the next hour, each by what became of the old answer and of the new: ``pf`` is a loss."""
        for i, (old, new) in enumerate(pair for pair in pairs.split()):
            self.number += 1
            record_id = f"r{self.number:04}"
            at = START + self.hour * HOUR + i * HOUR / 1000
            record = Record(question="q?", answer=ANSWERS[new], id=record_id, model_version=NEW, asked_at=at)
            self.traffic.add(record.model_copy(update={"conversation": conversation}))
            (verdict,) = self.judge.judge([Record(question="q?", answer=ANSWERS[old])])
            self.actions.add_replays([record_id], OLD, verdicts=[verdict])
        self.judge.asked.clear()

    def close(self) -> None:
        """The windows whose time has come."""
        now = START + self.hour * HOUR
        close_windows(self.windows, self.traffic, judge=self.judge, cut=CUT, now=now)

    def look(self, hours: float = 1.1, dry_run: bool = False, hold: int = 1) -> str:
        """What a watch that is started so much later does: the kind of its action, or nothing."""
        self.hour += hours
        self.close()
        with Alerts(self.workspace.alerts, [], policy=self.policy.name) as alerts:
            gating = GatingJudge(self.settings.judge_choice, self.policy, workspace=self.workspace)
            gating.judge = self.judge  # type: ignore[misc]
            canary = Canary(
                self.settings,
                self.policy,
                workspace=self.workspace,
                traffic=self.traffic,
                windows=self.windows,
                judge=gating,
                journal=Journal(self.actions, alerts, tell=self.said.append, dry_run=dry_run),
            )
            done = [canary.hold(START + self.hour * HOUR) for _ in range(hold)]
        self.hour = round(self.hour)
        assert not any(done[1:])
        return done[0].kind if done[0] else ""

    @property
    def looks(self) -> list[CanaryEvidence]:
        return self.actions.looks(NEW, START)


@pytest.fixture
def stretch(tmp_path: Path, state_before: Path, banking: Policy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stretch]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace, name = open_workspace(tmp_path / "mine"), banking.registered_model
    shutil.copy(state_before / "mlflow.db", workspace.mlflow_file)  # has versions 1 and 2
    settings = load_settings(ROOT / "configs/local.yaml")
    settings = settings.model_copy(update={"watch": settings.watch.model_copy(update={"canary": 12 * HOUR})})
    with (
        TrafficStore(workspace.traffic, name) as traffic,
        WindowStore(workspace.windows, name) as windows,
        ActionStore(workspace.windows, name) as actions,
    ):
        made = Stretch(settings, banking, workspace, traffic, windows, actions)
        made.registry.promote(NEW, by="ann", why="better", at=START)
        yield made


def pairs(text: str, n: int) -> str:
    return " ".join([text] * n)


def test_what_no_look_before_the_end_shows_is_found_once_looks_add_up(stretch: Stretch) -> None:
    stretch.ask(pairs("pf", 6) + " " + pairs("pp", 20))
    assert stretch.look() == ""  # a bound of 2.5 % would be crossed: 6 of 6
    assert "6 of 6 conversations lost" in stretch.said[-1] and stretch.said[-1].endswith("it stays.")
    stretch.ask(pairs("pf", 7) + " fp")
    assert stretch.look() == "rolled_back"
    assert stretch.registry.champion() == OLD
    first, second = stretch.looks
    assert (first.looks, second.looks, second.look.final) == (1, 2, False)
    assert (second.look.discordant, second.look.losses, second.look.needed) == (14, 13, 13)
    assert (second.comparison.n, second.comparison.wins, second.comparison.losses) == (34, 1, 13)
    (action,) = stretch.actions.newest()
    assert "on 34 questions of the traffic, version 2 passes -0.353 [" in action.why
    assert "13 lost, 1 won; look 2, 13 of 14 conversations lost" in action.why


def test_a_rollback_leaves_its_counts_in_the_promotion_record(stretch: Stretch) -> None:
    stretch.ask(pairs("pf", 12))
    assert stretch.look() == "rolled_back"
    entries = PromotionRecord(stretch.workspace.promotion_record).entries(stretch.policy.registered_model)
    (entry,) = [entry for entry in entries if entry.kind == "rollback"]
    facts = entry.facts["canary"]
    assert (entry.version, entry.by) == (OLD, "the canary")
    assert isinstance(facts, dict)
    assert facts["comparison"]["losses"] == 12 and facts["look"]["needed"] == 12
    assert facts["rule"]["interim_level"] == 0.00135
    assert CanaryEvidence.model_validate({k: v for k, v in facts.items() if k != "rule"}) == stretch.looks[0]


def test_the_end_is_looked_at_once_also_where_nobody_watched_then(stretch: Stretch) -> None:
    stretch.ask(pairs("pf", 7) + " " + pairs("pp", 13) + " fp")
    stretch.hour = 30
    stretch.ask(pairs("pf", 50))  # after the stretch: they are the next alarm's
    assert stretch.look(50) == "rolled_back"
    (only,) = stretch.looks
    assert (only.look.final, only.comparison.n, only.look.needed) == (True, 21, 7)
    assert stretch.look() == ""
    assert len(stretch.looks) == 1


def test_a_stretch_that_ends_well_says_what_it_could_have_seen(stretch: Stretch) -> None:
    stretch.ask(pairs("pp", 100) + " pf pf fp fp")
    assert stretch.look() == ""
    stretch.ask(pairs("pp", 20))
    assert stretch.look(20) == ""
    (action,) = stretch.actions.newest()
    assert (action.kind, action.version) == ("stayed", NEW)
    detectable = stretch.looks[-1].detectable
    assert detectable is not None and 0.06 < detectable < 0.12
    assert f"Were it worse by {detectable:.3f}, it would have been rolled back in 4 of 5" in action.why
    assert stretch.registry.champion() == NEW
    for _ in range(2):
        stretch.look()
    assert len(stretch.actions.newest()) == 1
    assert [each.look.final for each in stretch.looks] == [False, True]


@pytest.mark.parametrize("asked", ["", "pf pf pf"])
def test_too_little_traffic_is_no_evidence(stretch: Stretch, asked: str) -> None:
    if asked:
        stretch.ask(asked)
    assert stretch.look(20) == ""
    (action,) = stretch.actions.newest()
    told = "So few questions could not have shown it to be worse" if asked else "so it was not compared"
    assert told in action.why
    assert stretch.looks[0].detectable is None


def test_looks_are_counted_across_restarts_and_none_is_taken_without_news(stretch: Stretch) -> None:
    for hour in range(4):
        stretch.ask("pp pf")
        assert stretch.look(hold=3) == ""
        assert [each.looks for each in stretch.looks] == list(range(1, hour + 2))
    stretch.ask("pf pf")
    assert stretch.look(20) == "rolled_back"  # 6 of 6, with what four looks at so few have left: nearly all
    last = stretch.looks[-1]
    assert (last.look.final, last.looks, last.look.spent) == (True, 5, 0.0)


def test_a_conversation_counts_once(stretch: Stretch) -> None:
    stretch.ask(pairs("pf", 12), conversation="c")
    stretch.ask("pf pf pp")
    assert stretch.look() == ""
    (evidence,) = stretch.looks
    assert (evidence.comparison.losses, evidence.look.discordant, evidence.look.losses) == (14, 3, 3)


def test_what_is_unjudged_is_not_passed_and_asked_again(stretch: Stretch) -> None:
    stretch.ask(pairs("pu", 8) + " " + pairs("pp", 4))
    ids = [f"r{i:04}" for i in range(1, 13)]
    assert stretch.look() == ""
    assert (stretch.looks[0].unjudged, stretch.looks[0].comparison.losses) == (8, 8)
    assert "unjudged, so not passed: 8 and 0" in stretch.said[-1]
    stretch.ask("pu pu")
    assert stretch.look() == "rolled_back"
    assert set(ids[:8]) <= set(stretch.judge.asked) and ids[-1] not in stretch.judge.asked


def test_both_sides_are_judged_by_one_judge(stretch: Stretch) -> None:
    stretch.ask(pairs("pp", 12))
    assert stretch.look() == ""
    stretch.judge.id = "a stricter one"
    stretch.ask(pairs("pp", 3))
    for i in range(1, 13):  # which fails what version 1 answered
        said = Verdict(outcome="fail", score=0.1, explanation="", judge_id="a stricter one")
        stretch.actions.add_replays([f"r{i:04}"], OLD, verdicts=[said])
    assert stretch.look() == ""
    assert (stretch.looks[1].comparison.wins, stretch.looks[1].judge_id) == (12, "a stricter one")
    assert {"r0001", "r0012"} <= set(stretch.judge.asked)


def verdicts(outcomes: str) -> list[Verdict]:
    kinds = {"p": "pass", "f": "fail", "u": "unjudged"}
    return [Verdict.model_validate({**SAID, "outcome": kinds[each]}) for each in outcomes]


def test_looks_that_were_taken_count_at_the_end() -> None:
    new, old = "f" * 28 + "p" * 15, "p" * 28 + "f" * 15
    order = [i * 17 % 43 for i in range(43)]  # losses and wins mixed
    records = [Record(question="q?", answer="a", id=f"{i}") for i in order]

    def at(n: int, past: list[CanaryEvidence], final: bool) -> CanaryEvidence:
        judged = Judged(records=records[:n], verdicts=verdicts("".join(new[i] for i in order[:n])))
        before = verdicts("".join(old[i] for i in order[:n]))
        return evidence_of(judged, before, past=past, stretch=STRETCH, final=final)

    past: list[CanaryEvidence] = []
    for n in range(5, 43, 5):
        past.append(at(n, past, final=False))
    assert not any(each.look.worse for each in past)
    alone, after = at(43, [], final=True), at(43, past, final=True)
    assert (alone.look.worse, after.look.worse) == (True, False)
    assert (alone.look.needed, after.look.needed, after.looks) == (28, 29, 9)


STRETCH = {"version": NEW, "predecessor": OLD, "promoted_at": START, "at": START, "judge_id": "words"}
SAID = {"score": None, "explanation": "", "judge_id": "words"}


def test_of_two_models_that_are_as_often_unjudged_neither_is_favoured() -> None:
    records = [Record(question="my [card]?" if i == 3 else "q?", answer="a", id=f"{i}") for i in range(6)]
    judged = Judged(records=records, verdicts=verdicts("uuupff"))
    found = evidence_of(judged, verdicts("pfuuuu"), past=[], stretch=STRETCH, final=True)
    assert (found.comparison.losses, found.comparison.wins, found.comparison.n) == (1, 1, 6)
    assert (found.unjudged, found.predecessor_unjudged) == (3, 4)
    assert (found.partly_known, found.redacted) == (6, 1)
    assert "; 6 were asked again with what is known of the request; 1 were asked again without" in str(found)


def test_an_answer_of_the_predecessor_that_could_not_be_judged_is_asked_for_again(stretch: Stretch) -> None:
    records = [Record(question="q?", answer="a", id=each) for each in "abc"]
    stretch.actions.add_replays(["a", "b"], OLD, verdicts=verdicts("pu"))
    name = stretch.policy.registered_model
    replays = Replays(stretch.settings, name, workspace=stretch.workspace, actions=stretch.actions)
    assert [each.id for each in replays.missing(records, OLD, judge=stretch.judge)] == ["b", "c"]


def test_a_dry_run_spends_no_look(stretch: Stretch) -> None:
    stretch.ask(pairs("pf", 12))
    assert stretch.look(dry_run=True) == "would_roll_back"
    assert stretch.looks == [] and stretch.registry.champion() == NEW
    assert stretch.look(20, dry_run=True) == "would_roll_back"  # the end is another look
    assert stretch.look() == "rolled_back"


def test_a_predecessor_that_is_gone_is_said_once(stretch: Stretch) -> None:
    import sqlite3

    with sqlite3.connect(stretch.workspace.mlflow_file) as connection:
        connection.execute("DELETE FROM model_version_tags WHERE version = 1 AND key = 'ontopic.complete'")
    stretch.ask(pairs("pf", 12))
    assert stretch.look(hold=3) == ""
    assert [line for line in stretch.said if "version 1 is gone" in line] == stretch.said


def test_the_predecessor_gets_the_request_that_was_answered(model_folder: Path) -> None:
    model, question = load(model_folder, "float32"), "How do I freeze my card?"
    turns = [("system", "Answer in French."), ("user", "Hi"), ("assistant", "Hello!"), ("user", question)]
    whole = Record(
        question=question,
        answer="x",
        id="1",
        messages=tuple(Message(role=role, content=content) for role, content in turns),  # type: ignore[arg-type]
        parameters=Parameters(max_tokens=9),
    )
    plain = Record(question=question, answer="x", id="2", parameters=Parameters(max_tokens=5, stop=("app",)))
    older = Record(question=question, answer="x", id="3")
    settings = ModelSettings(name="embedded", max_new_tokens=7)
    found = answered_by(model, [whole, plain, older], settings=settings)
    (french,) = generate(model, [whole.request], max_new_tokens=9)
    alone = {n: generate(model, [older.request], max_new_tokens=n)[0].text for n in (5, 7)}
    assert [record.answer for record in found] == [french.text, alone[5], alone[7]]
    assert [record.finished for record in found] == [False] * 3
    assert french.text[:9] != alone[7][:9]
