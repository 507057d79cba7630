"""The gate's page shows the decision that it is given, says why in a sentence, and no record's text becomes markup."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from evaluations import evaluated, gate_card, gate_text, judged, without_verdicts
from pages import HOSTILE, assert_no_script_is_ended
from qualities import quality_of
from values import replace

from ontopic.config.policy import GateLimits, Policy
from ontopic.data.labelled import Question
from ontopic.evaluation.gate import Decision, Evaluated, GateTest, decide
from ontopic.evaluation.gate_page import write_gate_page
from ontopic.evaluation.quality import difference, perplexity_ratio
from ontopic.records import Judged, Message, Record, Verdict
from ontopic.statistics.pairs import compare
from ontopic.statistics.rates import Rate
from ontopic.statistics.scores import score

TESTS = [
    GateTest(name="The moon: full", passed=False, description="the moon is not full"),
    GateTest(name="The tide: high", passed=True, description="the tide is high"),
]
"""No number would say so: these outcomes come from nowhere but the decision."""


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


def assert_shown(page: str, *texts: str) -> None:
    assert [text for text in texts if text not in page] == []


@pytest.fixture(scope="module")
def sides() -> tuple[Evaluated, Evaluated]:
    return evaluated(judged(200, 100, "1")), evaluated(judged(200, 12, "2"))


def decided(policy: Policy, sides: tuple[Evaluated, Evaluated], out: Path, *, alpha: float = 0.05) -> Decision:
    return decide(*sides, winners=[], policy=policy, card=gate_card(policy), report=out, alpha=alpha)


def test_the_page_and_evidentlys_report_draw_the_decision_and_decide_nothing(tmp_path: Path) -> None:
    champion = evaluated(judged(20, 10, "m-1"))
    challenger = evaluated(judged(20, 2, "m-2"), quality_of(0.5, perplexity=100.0))
    decision = decision_on(champion, challenger, tmp_path / "deep" / "er" / "gate.html", TESTS)
    write_gate_page("A gate", decision, champion=champion, challenger=challenger)
    page = html.unescape(decision.report.read_text(encoding="utf-8"))
    assert sorted(path.name for path in decision.report.parent.iterdir()) == ["gate-evidently.html", "gate.html"]
    assert_shown(
        page,
        "It fails 1 of 2 tests",
        "may not replace version m-1: the moon is not full.",
        "the tide is high",
        "Of the 20 questions that both answered",
        "it alone passes 8, and its predecessor alone 0",
        "Answers to 40 questions in scope that have a reference",
        "100.0",
        "Answers that got better (8)",
        "Answer of m-2 to 9.",
        'href="gate-evidently.html"',
    )
    assert "lower bound at least" not in page  # a test that this decision does not have
    report = decision.evidently.read_text(encoding="utf-8")
    assert_shown(report, "The moon: full", '"description": "the moon is not full"', "Champion: 95 % interval", "0.123")
    assert '"state": "fail"' in report and '"state": "success"' in report


def test_a_pass_is_one_sentence_with_the_reason_and_its_margins(banking: Policy, sides, tmp_path: Path) -> None:
    decision = decided(banking, sides, tmp_path / "gate.html")
    page = gate_text(decision, *sides)
    assert decision.passed
    assert_shown(page, "Version 2 may replace version 1: it keeps to the subject in 94 of 100 answers, before 50.")
    assert "What to do" not in page
    leak = decision.challenger.leak
    margin = banking.gate.leak - leak.high
    assert_shown(page, f"upper bound at most {banking.gate.leak:g}", f"+{margin:.3f}", leak.with_interval)
    assert_shown(page, "Whether what the answer says is true is not judged", "each of the 200 questions stands alone")


def test_a_refusal_says_why_and_what_to_do(banking: Policy, sides, tmp_path: Path) -> None:
    decision = decided(banking, sides[::-1], tmp_path / "gate.html")
    page = gate_text(decision, *sides[::-1])
    low = decision.challenger.guardrail_score.low
    assert_shown(
        page,
        f"Version 1 may not replace version 2: the guardrail score may be as low as {low:.3f} and must be at least",
        "What to do",
        "the model itself misses the limit",
        f"{low - banking.gate.guardrail_score:+.3f}",
    )
    outcomes = re.findall(r'data-key="(True|False|None)"', page)
    assert outcomes == sorted(outcomes, key=lambda each: each != "False"), "what fails stands first"


@pytest.mark.parametrize(
    ("failing", "said"),
    [(0, "100 of 100 answers"), (1, "more than 99 of 100 answers")],
)
def test_a_share_is_not_rounded_to_all(failing: int, said: str, banking: Policy, tmp_path: Path) -> None:
    both = evaluated(judged(300, 200, "1")), evaluated(judged(300, failing, "2"))
    assert_shown(gate_text(decided(banking, both, tmp_path / "gate.html"), *both), said)


def test_both_readings_and_why_answers_are_unjudged_are_on_the_page(banking: Policy, tmp_path: Path) -> None:
    champion = evaluated(without_verdicts(judged(200, 100, "m-1"), lambda i: i == 3))
    challenger = evaluated(without_verdicts(judged(200, 20, "m-2"), lambda i: i >= 188))
    decision = decided(banking, (champion, challenger), tmp_path / "gate.html", alpha=0.01)
    worst = decision.worst
    assert worst is not None
    assert_shown(
        gate_text(decision, champion, challenger),
        "1 of the champion's and 12 of the challenger's answers",
        "of the improvement at 99 %",
        "Two readings: as judged, and in the worst case",
        str(decision.challenger.guardrail_score),
        str(worst.challenger.guardrail_score),
        str(worst.champion.leak),
        "improvement, 95 % interval",
        "improvement, 99 % interval, which the test reads",
        str(decision.comparison.rate),
        str(decision.improvement),
        f"{worst.improvement}; {worst.comparison.wins} wins, {worst.comparison.losses} losses",
        "By the kind, language and intent of the question",
        "Why answers are unjudged (1)",
        "timeout",
        "Worst case, Guardrail score",
        f"this gate sees a true improvement of {decision.detectable:.3f} with a chance of 80 %",
    )


def test_a_decision_of_an_earlier_release_is_drawn_too(banking: Policy, sides, tmp_path: Path) -> None:
    decision = decided(banking, sides, tmp_path / "gate.html")
    kept = {"name", "passed", "description"}
    said = decision.model_dump(mode="json", exclude={"card", "lineage", "judge_errors", "unjudged", "detectable"})
    said["tests"] = [{name: test[name] for name in kept} for test in said["tests"]]
    earlier = Decision.model_validate(said)
    page = gate_text(earlier, *sides)
    assert_shown(page, "may replace version 1", "which an earlier release made", earlier.tests[0].name)


def test_ten_of_each_are_shown_and_the_sorts_take_turns(banking: Policy, tmp_path: Path) -> None:
    both = evaluated(judged(450, 300, "1")), evaluated(judged(450, 20, "2"))
    questions = [
        replace(question, kind="two_part" if i == 250 else "", intent="the_rest")
        for i, question in enumerate(both[0].evaluation.questions)
    ]
    both = tuple(replace(side, evaluation=replace(side.evaluation, questions=questions)) for side in both)
    decision = decided(banking, both, tmp_path / "gate.html")
    page = gate_text(decision, *both)
    assert page.count('<article class="answered">') == 10 and "The other 270 are not on this page" in page
    assert_shown(page, "in scope, two part, the rest", "No answer got worse.")
    assert len(page) < 200_000


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    said = (Message(role="system", content=HOSTILE), Message(role="user", content=HOSTILE + "\u202e"))
    evil = Record(
        question=HOSTILE,
        answer=HOSTILE + "x" * 50_000,
        messages=said,
        in_scope=True,
        id="0",
        model_version="<b>m</b>",
    )
    verdicts = [
        Verdict(outcome=o, score=0.5, explanation=HOSTILE, judge_id="<i>judge</i>", in_scope=True, declined=o == "fail")
        for o in ("fail", "pass")
    ]
    asked = Question(question=HOSTILE, in_scope=True, kind=HOSTILE, intent=HOSTILE)
    sides = []
    for verdict in verdicts:
        side = evaluated(Judged(records=[evil] * 30, verdicts=[verdict] * 30))
        sides.append(replace(side, evaluation=replace(side.evaluation, questions=[asked] * 30)))
    page = tmp_path_factory.mktemp("hostile") / "gate.html"
    decision = decision_on(*sides, page, [GateTest(name="Leak", passed=False, description="a leak")])
    write_gate_page("A <b>title</b>", decision, champion=sides[0], challenger=sides[1])
    return page


def test_no_text_of_a_record_becomes_markup(hostile_page: Path) -> None:
    page = hostile_page.read_text(encoding="utf-8")
    assert "<title>A &lt;b&gt;title&lt;/b&gt;</title>" in page
    assert page.count("&lt;img src=x onerror=") > 30 and page.count("<script>") == 1
    for markup in ("<img", "<b>bold", "<i>judge", 'href="javascript', "\u202e", "x" * 5_000):
        assert markup not in page
    assert "The whole conversation (2 messages)" in page
    assert hostile_page.stat().st_size < 500_000


def test_no_text_of_a_record_ends_the_script_of_evidentlys_report(hostile_page: Path) -> None:
    assert_no_script_is_ended(hostile_page.with_name("gate-evidently.html"))
