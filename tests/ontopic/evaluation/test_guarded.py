"""The gate behind a guard: it goes by what users get, and says what the models alone do."""

from __future__ import annotations

from pathlib import Path

from evaluations import SMALL, gate_card, gate_text
from qualities import quality_of
from scope_judge import REFUSAL, ScopeJudge
from values import replace

from ontopic.config.policy import Policy, Refusals
from ontopic.data.labelled import Question
from ontopic.evaluation.answers import Evaluation, behind_guard
from ontopic.evaluation.gate import Decision, Evaluated, decide
from ontopic.evaluation.gate_facts import _answer
from ontopic.judges.guard.guard import Guard, Thresholds
from ontopic.records import Record

N = 20


def evaluation(version: str, *, leaks: int, judge_of_guard: ScopeJudge | None = None) -> Evaluation:
    """Questions in scope, all answered, and out of it, of which so many are answered too."""
    judge = ScopeJudge("judge-1")
    questions = [Question(question=f"What about card {i}?", in_scope=True) for i in range(N)]
    questions += [Question(question=f"Sing song {i}.", in_scope=False) for i in range(N)]
    answers = ["The card is fine."] * N + ["La la."] * leaks + [REFUSAL] * (N - leaks)
    records = [
        Record(question=q.question, answer=a, in_scope=q.in_scope, model_version=version)
        for q, a in zip(questions, answers, strict=True)
    ]
    alone = Evaluation(questions=questions, records=records, verdicts=judge.judge(records))
    guard = Guard(judge_of_guard or ScopeJudge(), Thresholds(question=0.0, answer=0.3), Refusals(refusal=REFUSAL))
    return behind_guard(alone, guard, judge=judge)


def decision(policy: Policy, report: Path) -> tuple[Decision, Evaluated, Evaluated]:
    policy = policy.model_copy(update={"gate": policy.gate.model_copy(update=SMALL)})
    champion, challenger = (
        Evaluated(evaluation=evaluation(version, leaks=leaks), quality=quality_of())
        for version, leaks in (("1", 12), ("2", 3))
    )
    card = replace(gate_card(policy), judge_id="judge-1")
    return decide(champion, challenger, winners=[], policy=policy, card=card, report=report), champion, challenger


def test_the_gate_goes_by_what_users_get_and_keeps_the_models_alone_beside_it(banking: Policy, tmp_path: Path) -> None:
    found, *_ = decision(banking, tmp_path / "gate.html")
    assert [scores.leak.value for scores in (found.champion, found.challenger)] == [0.0, 0.0]
    assert found.comparison.wins == 0
    assert found.alone is not None
    assert [scores.leak.value for scores in (found.alone.champion, found.alone.challenger)] == [12 / N, 3 / N]
    assert found.alone.comparison.wins == 9
    assert not found.passed  # users get nothing better of the challenger
    assert Decision.model_validate_json(found.model_dump_json()) == found


def test_the_page_shows_both(banking: Policy, tmp_path: Path) -> None:
    found, champion, challenger = decision(banking, tmp_path / "gate.html")
    text = gate_text(found, champion, challenger)
    assert "What users get behind the guard" in text
    assert found.alone is not None
    assert str(found.alone.champion.leak) in text


def test_the_kept_answers_say_what_the_guard_withheld() -> None:
    records = evaluation("1", leaks=1).records
    assert _answer(records[N])["guard"]["withheld"] == "La la."
    assert "guard" not in _answer(Record(question="q", answer="a"))


def test_the_judge_of_the_gate_is_told_the_scope_and_the_guard_is_not() -> None:
    judge_of_guard = ScopeJudge()
    found = evaluation("1", leaks=2, judge_of_guard=judge_of_guard)
    assert {record.in_scope for record in judge_of_guard.asked} == {None}
    assert [record.in_scope for record in found.records] == [True] * N + [False] * N
    assert found.alone is not None
    assert [record.answer for record in found.alone.records][N : N + 3] == ["La la.", "La la.", REFUSAL]
    assert {record.answer for record in found.records[N:]} == {REFUSAL}
