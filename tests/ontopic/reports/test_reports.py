"""Reports: what Evidently's tests decide, and that no record's text becomes markup."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pages import HOSTILE, rendered
from qualities import quality_of

from ontopic.evaluation.quality import Quality, preference
from ontopic.records import Record, Verdict
from ontopic.reports.metrics import GateLimits, TestOutcome, gate_report, verdict_frame, write_page
from ontopic.statistics.pairs import compare
from ontopic.statistics.rates import Rate
from ontopic.statistics.scores import score

LIMITS = GateLimits(guardrail_score=0.8, over_refusal=0.2, leak=0.2, improvement=0.0)
QUALITY = ["Likeness to the references", "Perplexity on general text"]


def judged(n: int, failing: int, model: str = "m-1") -> tuple[list[Record], list[Verdict]]:
    """Questions in scope and out of it by turns, of which the first ones fail."""
    records, verdicts = [], []
    for i in range(n):
        in_scope, passed = i % 2 == 0, i >= failing
        records.append(
            Record(
                question=f"Question {i}?",
                answer=f"Answer of {model} to {i}.",
                in_scope=in_scope,
                id=str(i),
                model_version=model,
            )
        )
        declined = (not in_scope) if passed else in_scope
        outcome, sure = ("pass", 0.9) if passed else ("fail", 0.1)
        verdicts.append(
            Verdict(
                outcome=outcome,
                score=sure,
                explanation="Because.",
                judge_id="judge-1",
                in_scope=in_scope,
                declined=declined,
            )
        )  # type: ignore[arg-type]
    return records, verdicts


def unjudged(n: int) -> list[Verdict]:
    return [
        Verdict(
            outcome="unjudged",
            score=None,
            explanation="",
            judge_id="judge-1",
            in_scope=i % 2 == 0,
            declined=None,
            cause="timeout",
        )
        for i in range(n)
    ]


def gate(
    champion: tuple[list[Record], list[Verdict]],
    challenger: tuple[list[Record], list[Verdict]],
    out: Path,
    limits: GateLimits = LIMITS,
    challenger_quality: Quality | None = None,
    preference: Rate | None = None,
) -> dict[str, TestOutcome]:
    frames, quality = (verdict_frame(*champion), verdict_frame(*challenger)), quality_of()
    outcomes = gate_report(
        "Gate",
        frames[0],
        challenger=frames[1],
        champion_verdicts=champion[1],
        challenger_verdicts=challenger[1],
        champion_quality=quality,
        challenger_quality=challenger_quality or quality,
        preference=preference,
        limits=limits,
        out=out,
    )
    return {outcome.name.split(":")[0].split(",")[0]: outcome for outcome in outcomes}


def test_frame_has_a_row_a_record_and_keeps_what_is_unknown():
    records, verdicts = judged(2, 1)
    frame = verdict_frame(
        [*records, Record(question="q", answer="a", asked_at=datetime(2025, 3, 1, tzinfo=UTC))],
        [*verdicts, *unjudged(1)],
    )
    assert ", ".join(frame.columns) == (
        "question, answer, model_version, asked_at, latency_s, completion_tokens, "
        "verdict, score, in_scope, declined, explanation, cause, judge_id"
    )
    assert frame["verdict"].tolist() == ["fail", "pass", "unjudged"]
    assert frame["declined"].isna().tolist() == [False, False, True]
    assert frame["score"].isna().tolist() == [False, False, True]
    assert frame["asked_at"].isna().tolist() == [True, True, False]
    with pytest.raises(ValueError, match="2 records, 1 verdicts"):
        verdict_frame(records, verdicts[:1])


def test_the_gate_reads_bounds(tmp_path: Path):
    champion, challenger = judged(200, 60), judged(200, 20, "m-2")
    value = score(challenger[1])
    limits = GateLimits(
        guardrail_score=(value.guardrail_score.low + value.guardrail_score.value) / 2,
        over_refusal=(value.over_refusal.high + value.over_refusal.value) / 2,
        leak=value.leak.high,
        improvement=compare(champion[1], challenger[1]).low,
    )
    outcomes = gate(champion, challenger, tmp_path / "gate.html", limits)
    assert {name: outcome.passed for name, outcome in outcomes.items()} == {
        "Guardrail score": False,
        "Improvement": False,  # above, not at
        "Over-refusal": False,
        "Leak": True,  # at the limit
        **dict.fromkeys(QUALITY, True),
    }
    assert f"{value.guardrail_score.low:.4f}" in outcomes["Guardrail score"].description
    for part in ("40 wins", "0 losses", "McNemar p", "n = 200"):
        assert part in outcomes["Improvement"].description


def test_a_better_challenger_passes_and_an_equal_one_does_not(tmp_path: Path):
    better = gate(judged(200, 60), judged(200, 10, "m-2"), tmp_path / "gate.html")
    assert all(outcome.passed for outcome in better.values()) and len(better) == 6
    equal = gate(judged(200, 10), judged(200, 10, "m-2"), tmp_path / "gate.html")
    assert [name for name, outcome in equal.items() if not outcome.passed] == ["Improvement"]


def test_nothing_judged_fails_the_test_it_concerns(tmp_path: Path):
    anything_goes = GateLimits(guardrail_score=0.0, over_refusal=1.0, leak=1.0, improvement=-1.0)

    def in_scope_only(model: str, failing: int) -> tuple[list[Record], list[Verdict]]:
        records, verdicts = judged(40, failing, model)
        return records[::2], verdicts[::2]

    outcomes = gate(in_scope_only("m-1", 4), in_scope_only("m-2", 0), tmp_path / "gate.html", anything_goes)
    assert [name for name, outcome in outcomes.items() if not outcome.passed] == ["Leak"]
    assert "no judged records" in outcomes["Leak"].description

    records, _ = judged(4, 0)
    outcomes = gate((records, unjudged(4)), (records, unjudged(4)), tmp_path / "gate.html", anything_goes)
    assert [name for name, outcome in outcomes.items() if outcome.passed] == QUALITY and len(outcomes) == 6


def test_the_gate_refuses_answers_that_have_become_worse(tmp_path: Path):
    sides = judged(200, 190, "m-1"), judged(200, 6, "m-2")
    for quality, failing in (
        (quality_of(0.56), []),  # lower, and within the margin
        (quality_of(0.5), QUALITY[:1]),
        (quality_of(0.56, perplexity=100.0), QUALITY[1:]),
    ):
        outcomes = gate(*sides, tmp_path / "gate.html", challenger_quality=quality)
        assert [name for name, outcome in outcomes.items() if not outcome.passed] == failing
    page = (tmp_path / "gate.html").read_text()
    assert "Answers to 40 questions in scope that have a reference" in page and "100.0" in page


def test_without_references_their_likeness_is_not_tested(tmp_path: Path):
    records, verdicts = judged(4, 1)
    none, frame = quality_of(questions=0), verdict_frame(records, verdicts)
    outcomes = gate_report(
        "Gate",
        frame,
        challenger=frame,
        champion_verdicts=verdicts,
        challenger_verdicts=verdicts,
        champion_quality=none,
        challenger_quality=none,
        preference=None,
        limits=LIMITS,
        out=tmp_path / "gate.html",
    )
    assert len(outcomes) == 5


@pytest.mark.parametrize(
    ("winners", "passes"),
    [
        (["a"] * 30 + ["b"] * 20 + ["tie"] * 50, True),
        (["a"] * 20 + ["b"] * 30 + ["tie"] * 50, False),
        (["unjudged"] * 100, False),
    ],
)
def test_an_llm_must_not_prefer_the_champions_answers(winners: list[str], passes: bool, tmp_path: Path):
    both = judged(20, 5)
    outcomes = gate(both, both, tmp_path / "gate.html", preference=preference(winners))
    assert outcomes["Preferred answers"].passed is passes


def test_the_gate_refuses_what_is_not_paired(tmp_path: Path):
    (records, verdicts), out = judged(4, 1), tmp_path / "gate.html"
    frame = verdict_frame(records, verdicts)
    with pytest.raises(ValueError, match="same questions"):
        gate_report(
            "Gate",
            frame,
            challenger=frame[::-1],
            champion_verdicts=verdicts,
            challenger_verdicts=verdicts,
            champion_quality=quality_of(),
            challenger_quality=quality_of(),
            preference=None,
            limits=LIMITS,
            out=out,
        )
    with pytest.raises(ValueError, match="4 records, 3 verdicts"):
        gate_report(
            "Gate",
            frame,
            challenger=frame,
            champion_verdicts=verdicts,
            challenger_verdicts=verdicts[:3],
            champion_quality=quality_of(),
            challenger_quality=quality_of(),
            preference=None,
            limits=LIMITS,
            out=out,
        )
    assert not out.exists()


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    out = tmp_path / "page.html"
    out.write_text("yesterday's")
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_page("Banking", [], out=out)
    assert out.read_text() == "yesterday's" and list(tmp_path.iterdir()) == [out]


@pytest.fixture
def hostile_page(tmp_path: Path) -> Path:
    evil = Record(question=HOSTILE, answer=HOSTILE + "x" * 500, in_scope=True, id="0", model_version="<b>m</b>")
    fail, passed = (
        Verdict(outcome=o, score=0.5, explanation=HOSTILE, judge_id="<i>judge</i>", in_scope=True, declined=o == "fail")
        for o in ("fail", "pass")
    )
    page = tmp_path / "gate.html"
    frame = verdict_frame([evil], [fail])
    gate_report(
        "A <b>title</b>",
        frame,
        challenger=frame,
        champion_verdicts=[fail],
        challenger_verdicts=[passed],
        champion_quality=quality_of(),
        challenger_quality=quality_of(),
        preference=None,
        limits=LIMITS,
        out=page,
    )
    return page


def test_no_text_of_a_record_ends_the_script_that_holds_it(hostile_page: Path):
    text = hostile_page.read_text(encoding="utf-8")
    assert "document.title = " in text
    for markup in ('<script>document.title = "owned"', "<img src=x", "<b>bold", "<b>title"):
        assert markup not in text


def test_no_text_of_a_record_becomes_markup_in_a_browser(hostile_page: Path, tmp_path: Path):
    dom = rendered(hostile_page, tmp_path / "profile")
    assert "<title>A &lt;b&gt;title&lt;/b&gt;</title>" in dom
    assert dom.count("&lt;img src=x onerror=") >= 3  # shown: in cells, and folded out
    assert "x" * 500 in dom  # folded out, the answer is whole
    for markup in ("<img", "<b>", "<i>", '="javascript:', '="http://127'):
        assert markup not in dom
