"""What the promotion record holds of a gate: everything that an auditor asks for, and files that keep their hashes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from evaluations import SMALL, evaluated, judged, unjudged
from loopback import ROOT
from registries import NAME, made_registry

from ontopic.config.policy import Policy
from ontopic.config.settings import Settings, load_settings
from ontopic.data.labelled import Question
from ontopic.evaluation.evidence import Evidence
from ontopic.evaluation.gate import Decision, Evaluated, decide
from ontopic.evaluation.gate_entry import enter_gate, enter_refusal
from ontopic.evaluation.gate_facts import GateFacts, Weights, gate_facts
from ontopic.judges.cards.card import Group, JudgeCard, criteria_sha256
from ontopic.records import Judged
from ontopic.registry.record_check import check_record
from ontopic.state.workspace import Workspace
from ontopic.statistics.rates import rate

EVIDENCE = Evidence(
    policy_sha256="p" * 64, questions_sha256="q" * 64, attempt=2, look=3, alpha=0.01, seed=7, sample_sha256="s" * 64
)


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings(ROOT / "configs" / "local.yaml")


@pytest.fixture
def workspace(anywhere: Workspace) -> Workspace:
    return anywhere


@pytest.fixture(scope="module")
def card(banking: Policy) -> JudgeCard:
    share = rate(99, 100)
    return JudgeCard(
        scope_given=True,
        judge_id="judge-1",
        origin="traffic",
        accuracy=share,
        kappa=share,
        sensitivity=share,
        specificity=share,
        unjudged=3,
        groups=(Group(name="g", n=1, right=1, false_fails=0, false_passes=0, unjudged=0),),
        labels_sha256="l" * 64,
        criteria_sha256=criteria_sha256(banking),
    )


def sides(model: str, failing: int, not_judged: int = 0) -> Evaluated:
    of = judged(60, failing, model=model)
    last = unjudged(60)[60 - not_judged :] if not_judged else []
    return evaluated(Judged(records=of.records, verdicts=[*of.verdicts[: 60 - not_judged], *last]))


def decided(banking: Policy, card: JudgeCard, report: Path, champion: Evaluated, challenger: Evaluated) -> Decision:
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(f"the page of {challenger.evaluation.model_version}")
    decision = decide(champion, challenger, winners=[], policy=banking, card=card, report=report)
    decision.evidently.write_text("Evidently's report, to which the page links by its name")
    return decision


def facts_of(
    banking: Policy, card: JudgeCard, settings: Settings, workspace: Workspace, failing: int = 2, not_judged: int = 4
) -> tuple[Decision, GateFacts]:
    champion, challenger = sides("1", 40), sides("2", failing, not_judged)
    decision = decided(banking, card, workspace.reports / "gate.html", champion, challenger)
    facts = gate_facts(
        decision,
        card,
        champion=champion.evaluation,
        challenger=challenger.evaluation,
        evidence=EVIDENCE.with_settings(settings),
        weights=Weights.of("w" * 64, tags={"ontopic.preferences_sha256": "x"}, champion_tags={"ontopic.digest": "d"}),
        workspace=workspace,
    )
    return decision, facts


def test_the_facts_answer_what_an_auditor_asks(
    banking: Policy, card: JudgeCard, settings: Settings, workspace: Workspace
) -> None:
    decision, facts = facts_of(banking, card, settings, workspace)
    said = facts.model_dump(mode="json")
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    assert said["gate"] == ("passed" if decision.passed else "failed")
    assert said["against"] == "1"
    assert said["decision"] == json.loads(decision.model_dump_json(exclude={"report", "card", "lineage"}))
    assert (said["decision"]["champion"]["unjudged"], said["decision"]["challenger"]["unjudged"]) == (0, 4)
    assert {name: said[name] for name in ("look", "alpha", "attempt")} == {"look": 3, "alpha": 0.01, "attempt": 2}
    hashes = ("policy_sha256", "questions_sha256", "weights_sha256", "champion_digest")
    assert "".join(said[name][0] for name in hashes) == "pqwd"
    assert said["training_data"] == {"preferences_sha256": "x"}
    assert set(said["card"]) >= {
        "origin",
        "labels_sha256",
        "measured_at",
        "n",
        "sensitivity",
        "specificity",
        "unjudged",
    }
    assert (said["card"]["origin"], said["card"]["n"], "groups" in said["card"]) == ("traffic", 103, False)
    assert set(said["settings"]) == {"model", "training", "evaluation"}
    assert said["settings"]["training"]["learning_rate"] == settings.training.learning_rate
    assert said["code"]["packages"]["torch"] and "pytest" not in said["code"]["packages"]
    assert said["code"]["commit"] or said["code"]["release"]


def test_the_questions_are_named_so_that_others_are_told_apart(
    banking: Policy, card: JudgeCard, settings: Settings, workspace: Workspace
) -> None:
    _, facts = facts_of(banking, card, settings, workspace)
    asked = facts.questions
    assert (asked.n, asked.in_scope, asked.seed, asked.drawn_sha256) == (60, 30, 7, "s" * 64)
    assert len(set(asked.ids)) == 60
    _, again = facts_of(banking, card, settings, workspace)
    assert again.questions == asked
    champion, challenger = sides("1", 40), sides("2", 2)
    turned = challenger.evaluation.model_copy(update={"questions": challenger.evaluation.questions[::-1]})
    decision = decided(banking, card, workspace.reports / "gate.html", champion, challenger)
    other = gate_facts(
        decision,
        card,
        champion=champion.evaluation,
        challenger=turned,
        evidence=EVIDENCE.with_settings(settings),
        weights=Weights(challenger_sha256="w"),
        workspace=workspace,
    )
    assert other.questions.sha256 != asked.sha256
    assert sorted(other.questions.ids) == sorted(asked.ids)


def test_every_answer_and_verdict_is_kept_under_its_hash(
    banking: Policy, card: JudgeCard, settings: Settings, workspace: Workspace
) -> None:
    _, facts = facts_of(banking, card, settings, workspace)
    names = {Path(path).name for path in facts.files}
    sides = {f"{role}-{what}.jsonl" for role in ("champion", "challenger") for what in ("answers", "verdicts")}
    assert names == {"gate.html", "gate-evidently.html", "decision.json"} | sides
    for path, sha256 in facts.files.items():
        assert hashlib.sha256(workspace.files.read(workspace.root / path)).hexdigest() == sha256
    (answers,) = (workspace.root / path for path in facts.files if path.endswith("challenger-answers.jsonl"))
    rows = [json.loads(line) for line in workspace.files.read(answers).splitlines()]
    assert (len(rows), rows[0]["question"], rows[0]["answer"]) == (60, "Question 0?", "Answer of 2 to 0.")
    (verdicts,) = (workspace.root / path for path in facts.files if path.endswith("challenger-verdicts.jsonl"))
    assert [json.loads(line)["outcome"] for line in workspace.files.read(verdicts).splitlines()].count("unjudged") == 4


def test_a_second_gate_of_the_same_weights_adds_and_overwrites_nothing(
    banking: Policy, card: JudgeCard, settings: Settings, workspace: Workspace
) -> None:
    registry = made_registry(workspace.root)
    entries = []
    banking = banking.model_copy(update={"gate": banking.gate.model_copy(update=SMALL)})
    card = card.model_copy(update={"criteria_sha256": criteria_sha256(banking)})
    for look, failing in enumerate((2, 30, 30), start=1):
        decision, facts = facts_of(banking, card, settings, workspace, failing=failing, not_judged=0)
        entries.append(enter_gate(registry, "2", facts=facts.model_copy(update={"look": look})))
    enter_refusal(registry, entries[-1], decision=decision)
    assert registry.record.gates(NAME) == entries
    assert [entry.facts["gate"] for entry in entries] == ["passed", "failed", "failed"]
    assert [entry.facts["alpha_spent"] for entry in entries] == pytest.approx([0.01, 0.02, 0.03])
    found = check_record(registry.record, workspace=workspace, registries=[registry])
    assert (found.faults, found.entries, found.files) == ([], 4, 21)


def test_a_refusal_says_which_tests_failed_and_names_its_gate(
    banking: Policy, card: JudgeCard, settings: Settings, workspace: Workspace
) -> None:
    registry = made_registry(workspace.root)
    decision, facts = facts_of(banking, card, settings, workspace, failing=40)
    gate = enter_gate(registry, "2", facts=facts)
    refusal = enter_refusal(registry, gate, decision=decision)
    assert (refusal.kind, refusal.version, refusal.facts["gate_sha256"]) == ("refusal", "2", gate.sha256)
    failed = [test for test in decision.tests if not test.passed]
    assert failed and failed[0].description[:100] in refusal.why


def test_a_decision_from_the_cache_is_no_new_look(
    banking: Policy, card: JudgeCard, settings: Settings, workspace: Workspace
) -> None:
    registry = made_registry(workspace.root)
    decision, facts = facts_of(banking, card, settings, workspace, failing=40)
    first, again = (enter_gate(registry, "2", facts=facts) for _ in range(2))
    assert first == again
    assert enter_refusal(registry, first, decision=decision) == enter_refusal(registry, again, decision=decision)
    assert [entry.kind for entry in registry.record.entries()] == ["gate", "refusal"]
    assert enter_gate(registry, "3", facts=facts).number == 3


def test_history_tells_two_questions_apart() -> None:
    from ontopic.data.labelled import Message
    from ontopic.evaluation.gate_facts import _asked

    plain = Question(question="And that?", in_scope=True)
    follows = plain.model_copy(update={"history": (Message(role="user", content="A loan?"),)})
    asked = _asked([plain, follows], EVIDENCE)
    assert len(set(asked.ids)) == 2
