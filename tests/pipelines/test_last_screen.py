"""What the loop says at its end."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from outcomes import compared
from rich.console import Console

from ontopic.commands.reporting import as_text
from ontopic.config.policy import GateLimits
from ontopic.errors import UserError
from ontopic.evaluation.discordant import GatePairs, Pair
from ontopic.evaluation.gate import Decision, GateTest
from ontopic.monitoring.asked_traffic import Monitored
from ontopic.monitoring.standing import uncorrected_in_words
from ontopic.statistics.rates import rate
from ontopic.statistics.scores import Scores
from pipelines.commands import check_any_judged
from pipelines.last_screen import LoopReport, gate_pages, last_screen
from pipelines.loop import LoopResult

SCORES = Scores(guardrail_score=rate(20, 20), over_refusal=rate(0, 10), leak=rate(0, 10), unjudged=0)
MONITORED = Monitored(scores=SCORES, score=rate(20, 20), windows=[], alerts=[], report=Path("monitoring.html"))
EVIDENCE = ["version 2, promoted by the loop: passed the gate", "version 2: guardrail score 0.930"]


@pytest.fixture
def decision() -> Decision:
    return Decision(
        champion=SCORES.model_copy(update={"unjudged": 3}),
        challenger=SCORES.model_copy(update={"unjudged": 1}),
        comparison=compared(2, 1, 20),
        detectable=0.21,
        quality=rate(0, 0),
        preference=None,
        passed=False,
        tests=[GateTest(name="Guardrail score", passed=False, description="Guardrail score: the lower bound ...")],
        limits=GateLimits(guardrail_score=0.85, over_refusal=0.5, leak=0.5, improvement=0.0),
        report=Path("gate.html"),
    )


def shown(result: LoopResult, **more: Any) -> str:
    out = StringIO()
    Console(file=out, width=200).print(last_screen(result, EVIDENCE, **more))
    return out.getvalue()


def test_a_loop_with_nothing_to_improve_says_what_is_known_of_the_champion() -> None:
    said = shown(LoopResult(before=MONITORED, champion="2"))
    assert "No window of version 2 is detected: nothing to improve." in said
    assert all(line in said for line in EVIDENCE)
    assert "Before and after" not in said


def test_the_screen_shows_answers_of_both_models_and_the_pages(decision: Decision) -> None:
    passes = {"won": (False, True), "lost": (True, False)}
    pairs = [
        Pair(question=f"q {kind} {scope}", in_scope=scope, champion="old", challenger="n\x1b[2Jew", passes=passes[kind])
        for kind, scope in (("lost", True), ("won", False), ("won", False), ("won", True))
    ]
    of_gate = GatePairs(
        registered_model="m",
        champion="1",
        challenger="2",
        judge_id="j",
        sample_id="s",
        at=datetime.now(UTC),
        discordant=pairs,
        agreeing=[],
        same=0,
    )
    result = LoopResult(
        before=MONITORED,
        decision=decision.model_copy(update={"passed": True}),
        champion="1",
        challenger="2",
        stages=[("judge", 2.0), ("train", 60.0), ("calibrate", None)],
    )
    said = shown(result, pairs=of_gate, earlier=[Path("before.html")])
    assert "Answers to the same questions (3 won, 1 lost; these are drawn at random)" in said
    order = ["Version 2 is the champion now.", "Before and after", "The gate's tests", "q won True", "q won False"]
    order += ["q lost True", "Open next:", "1. gate.html", "2. monitoring.html", "3. before.html", "It took 62 s"]
    places = [said.index(text) for text in order]
    assert places == sorted(places)
    assert "most of it: train 60 s, judge 2 s. 1 of 3 stages had not changed" in said
    assert "\x1b[2J" not in said


def test_a_champion_s_gate_page_is_opened_and_not_evidently_s_nor_another_version_s(tmp_path: Path) -> None:
    for name in ("2-against-1", "2-against-1-evidently", "3-against-2", "12-against-1"):
        (tmp_path / f"gate-m-version-{name}.html").touch()
    assert [page.name for page in gate_pages(tmp_path, "m", champion="2")] == ["gate-m-version-2-against-1.html"]


def test_a_report_says_what_the_screen_says(decision: Decision) -> None:
    report = LoopReport.of(LoopResult(before=MONITORED, decision=decision, champion="1", challenger="2"))
    assert report.outcome == "refused"
    assert report.in_words.startswith("Version 2 stays a challenger, and version 1 the champion: one test failed.")
    assert json.loads(as_text(report))["gate"]["challenger"]["guardrail_score"]["n"] == 20


def test_a_loop_that_could_judge_nothing_is_an_error() -> None:
    check_any_judged(SCORES)
    nothing = Scores(guardrail_score=rate(0, 0), over_refusal=rate(0, 0), leak=rate(0, 0), unjudged=7)
    with pytest.raises(UserError, match="none of the 7 answers could be judged"):
        check_any_judged(nothing)


def test_that_the_score_is_not_corrected_is_said() -> None:
    said = "uncorrected: the judge's error on this traffic is unknown"
    assert said not in shown(LoopResult(before=MONITORED, champion="2"))
    raw = MONITORED.model_copy(update={"is_corrected": False, "in_words": uncorrected_in_words(3)})
    assert said in shown(LoopResult(before=raw, champion="2"))


def test_that_the_judge_may_not_gate_is_said_and_what_to_do() -> None:
    said = shown(LoopResult(before=MONITORED, champion="1", no_gate="judge x may not gate: its kappa is 0.2"))
    assert "Nothing was trained or promoted: judge x may not gate: its kappa is 0.2." in said
    assert "python run.py policy check" in said and "python run.py label" in said
    assert "nothing to improve" not in said


def test_a_refused_challenger_comes_with_what_to_do(decision: Decision) -> None:
    said = shown(LoopResult(before=MONITORED, decision=decision, champion="1", challenger="2"))
    assert "Version 2 stays a challenger, and version 1 the champion: one test failed." in said
    assert "What to do:" in said
    assert "FAILED" in said
    assert "20 questions are too few for any model, the gate needs 22 at least" in said
    assert EVIDENCE[0] not in said
    assert re.search(r"unjudged +│ +0│ +3│ +1│", said)
    assert "this gate sees a true improvement of 0.210 with a chance of 80 %" in " ".join(said.split())
    let_pass = decision.model_copy(update={"passed": True})
    passed = shown(LoopResult(before=MONITORED, decision=let_pass, champion="1", challenger="2"))
    assert "Version 2 is the champion now." in passed
    assert "What to do" not in passed
    waits = shown(LoopResult(before=MONITORED, decision=let_pass, challenger="2", waiting=["version 2 waits for ann"]))
    assert "Waits: version 2 waits for ann" in waits
    assert "Version 2 passed the gate and is not the champion yet." in waits
    assert "is the champion now" not in waits


def test_a_loop_that_trained_nothing_as_a_challenger_waits_says_so() -> None:
    said = shown(LoopResult(before=MONITORED, champion="1", waiting=["version 2 waits for ann"]))
    assert "Nothing was trained while a challenger waits or is rolled out." in said
    assert "Waits: version 2 waits for ann" in said
    assert "nothing to improve" not in said
