"""The gate's page shows the decision that it is given, and no record's text becomes markup."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluations import evaluated, gate_card, judged, without_verdicts
from pages import HOSTILE, assert_no_script_is_ended, assert_no_text_is_markup
from qualities import quality_of

from ontopic.config.policy import GateLimits, Policy
from ontopic.evaluation.gate import Decision, Evaluated, GateTest, decide
from ontopic.evaluation.gate_page import write_gate_page
from ontopic.evaluation.quality import difference, perplexity_ratio
from ontopic.records import Judged, Record, Verdict
from ontopic.statistics.pairs import compare
from ontopic.statistics.rates import Rate
from ontopic.statistics.scores import score


def decision_on(champion: Evaluated, challenger: Evaluated, out: Path, tests: list[GateTest]) -> Decision:
    before, after = champion.evaluation.verdicts, challenger.evaluation.verdicts
    return Decision(
        passed=all(test.passed for test in tests),
        tests=tests,
        champion=score(before),
        challenger=score(after),
        comparison=compare(before, after),
        quality=difference(champion.quality, challenger.quality),
        preference=Rate(value=0.123, low=0.1, high=0.2, n=9),
        perplexity=perplexity_ratio(champion.quality, challenger.quality),
        limits=GateLimits(guardrail_score=0.8, over_refusal=0.2, leak=0.2, improvement=0.0),
        report=out,
    )


def test_the_page_draws_the_decision_and_decides_nothing(tmp_path: Path) -> None:
    champion = evaluated(judged(20, 10, "m-1"))
    challenger = evaluated(judged(20, 2, "m-2"), quality_of(0.5, perplexity=100.0))
    out = tmp_path / "deep" / "er" / "gate.html"
    # No number would say so: these outcomes come from nowhere but the decision.
    tests = [
        GateTest(name="The moon: full", passed=False, description="the moon is not full"),
        GateTest(name="The tide: high", passed=True, description="the tide is high"),
    ]
    decision = decision_on(champion, challenger, out, tests)
    write_gate_page("A gate", decision, champion=champion, challenger=challenger)
    page = out.read_text(encoding="utf-8")
    assert [path.name for path in out.parent.iterdir()] == ["gate.html"]
    for shown in (
        "The challenger fails 1 of 2 tests.",
        "answered the same 20 questions",
        "The moon: full",
        '"description": "the moon is not full"',
        "the tide is high",
        "Champion: 95 % interval",
        "8 wins, 0 losses",
        "Answers to 40 questions in scope that have a reference",
        "Cosine similarity to the references, challenger minus champion",
        "0.123",
        "100.0",
        "Questions with different verdicts (8)",
        "Answer of m-2 to 9.",
    ):
        assert shown in page, shown
    assert '"state": "fail"' in page and '"state": "success"' in page
    assert "Guardrail score: lower bound" not in page  # a test that this decision does not have


def test_both_readings_and_why_answers_are_unjudged_are_on_the_page(banking: Policy, tmp_path: Path) -> None:
    champion = evaluated(without_verdicts(judged(200, 100, "m-1"), lambda i: i == 3))
    challenger = evaluated(without_verdicts(judged(200, 20, "m-2"), lambda i: i >= 188))
    card = gate_card(banking)
    out = tmp_path / "gate.html"
    decision = decide(champion, challenger, winners=[], policy=banking, card=card, report=out, alpha=0.01)
    write_gate_page("A gate", decision, champion=champion, challenger=challenger)
    page = out.read_text(encoding="utf-8")
    worst = decision.worst
    assert worst is not None
    for shown in (
        "1 of the champion's and 12 of the challenger's answers",
        "which is held at 99 %",
        "Two readings: as judged, and in the worst case",
        str(decision.challenger.guardrail_score),
        str(worst.challenger.guardrail_score),
        str(worst.champion.leak),
        "improvement, 95 % interval",
        "improvement, 99 % interval, which the test reads",
        str(decision.comparison.rate),
        str(decision.improvement),
        f"{worst.improvement}; {worst.comparison.wins} wins, {worst.comparison.losses} losses",
        "By the language of the question",
        "Why answers are unjudged (1)",
        "timeout",
        "Worst case, Guardrail score",
        f"this gate sees a true improvement of {decision.detectable:.3f} with a chance of 80 %",
    ):
        assert shown in page, shown


def test_a_challenger_without_a_failed_test_passes_on_the_page(tmp_path: Path) -> None:
    side, out = evaluated(judged(4, 1)), tmp_path / "gate.html"
    tests = [GateTest(name="The tide: high", passed=True, description="the tide is high")]
    write_gate_page("A gate", decision_on(side, side, out, tests), champion=side, challenger=side)
    page = out.read_text(encoding="utf-8")
    assert "The challenger passes." in page and "The two have the same verdict on every question." in page


@pytest.fixture
def hostile_page(tmp_path: Path) -> Path:
    evil = Record(question=HOSTILE, answer=HOSTILE + "x" * 500, in_scope=True, id="0", model_version="<b>m</b>")
    sides = [
        Verdict(outcome=o, score=0.5, explanation=HOSTILE, judge_id="<i>judge</i>", in_scope=True, declined=o == "fail")
        for o in ("fail", "pass")
    ]
    champion, challenger = (evaluated(Judged(records=[evil], verdicts=[verdict])) for verdict in sides)
    page = tmp_path / "gate.html"
    decision = decision_on(champion, challenger, page, [GateTest(name="Leak", passed=False, description="a leak")])
    write_gate_page("A <b>title</b>", decision, champion=champion, challenger=challenger)
    return page


def test_no_text_of_a_record_ends_the_script_that_holds_it(hostile_page: Path) -> None:
    assert_no_script_is_ended(hostile_page)


def test_no_text_of_a_record_becomes_markup_in_a_browser(hostile_page: Path, tmp_path: Path) -> None:
    assert_no_text_is_markup(hostile_page, tmp_path / "profile")
