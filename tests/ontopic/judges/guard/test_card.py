from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from drawn_pages import text_of
from scope_judge import REFUSAL, ScopeJudge

from ontopic.commands.guard import guard_screen
from ontopic.config.policy import Policy
from ontopic.errors import UserError
from ontopic.judges.guard.card import GuardCard, load_guard, measured_guard
from ontopic.judges.guard.page import guard_report


@pytest.fixture
def policy(banking: Policy, tmp_path: Path) -> Policy:
    """A policy with 60 calibration questions, of which the words mislead the judge about some."""

    def write(name: str, rows: Sequence[dict[str, object]]) -> str:
        (tmp_path / name).write_text("".join(json.dumps(row | {"split": "calibration"}) + "\n" for row in rows))
        return str(tmp_path / name)

    inside = [f"What about card {i}?" for i in range(28)] + ["Is money 1 safe?", "Is it open?"]
    outside = [f"Sing song {i}." for i in range(28)] + ["Paint money 2.", "Paint a card."]
    questions = [{"question": q, "in_scope": True, "reference": "The card is fine."} for q in inside]
    questions += [{"question": q, "in_scope": False} for q in outside]
    records = [{"question": q, "answer": "La la.", "label": "fail", "in_scope": False} for q in outside]
    update = {"questions": write("q.jsonl", questions), "records": write("r.jsonl", records), "refusal": REFUSAL}
    return banking.model_copy(update=update)


def test_the_highest_threshold_within_the_budget_is_chosen(policy: Policy) -> None:
    # Of 30 in scope the judge gives one 0.4 and one 0.02; of 30 out of scope one 0.4 and one 0.98.
    chosen = {budget: measured_guard(ScopeJudge(), policy, budget=budget).question for budget in (0.0, 0.07, 0.2)}
    assert [stage.chosen for stage in chosen.values()] == [0.02, 0.4, 0.5]
    shares = [share for stage in chosen.values() for share in (stage.at_chosen.over_refusal, stage.at_chosen.leak)]
    assert [round(share.value * 30) for share in shares] == [0, 30, 1, 2, 2, 1]
    assert {stage.at_chosen.leak.n for stage in chosen.values()} == {30}


def test_the_curve_trades_leak_for_over_refusal(policy: Policy) -> None:
    card = measured_guard(ScopeJudge(), policy, budget=0.07)
    for stage in (card.question, card.answer):
        assert [point.threshold for point in stage.curve] == [i / 100 for i in range(51)]
        refused = [point.over_refusal.value for point in stage.curve]
        leaked = [point.leak.value for point in stage.curve]
        assert (refused, leaked) == (sorted(refused), sorted(leaked, reverse=True))
        assert (refused[0], leaked[0]) == (0.0, 1.0)


def test_errors_are_of_questions_that_did_not_choose_the_threshold(policy: Policy) -> None:
    # The one question in scope that the judge takes for a song is in one half: the other half allows any threshold,
    # and stops it; its own half would not.
    card = measured_guard(ScopeJudge(), policy, budget=0.0)
    assert card.question.at_chosen.over_refusal.value == 0.0
    assert card.question.held_out.over_refusal.value > 0.0
    assert card.question.held_out.over_refusal.n == card.question.held_out.leak.n == 30
    assert card.both.leak.n == 30
    assert card.metrics()["guard_question_leak"] == card.question.held_out.leak.value


def test_without_a_question_in_scope_nothing_is_stopped(policy: Policy, tmp_path: Path) -> None:
    row = {"question": "Sing a song.", "in_scope": False, "split": "calibration"}
    (tmp_path / "one.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "none.jsonl").write_text(json.dumps(row | {"answer": "La.", "label": "fail"}) + "\n")
    sources = {"questions": str(tmp_path / "one.jsonl"), "records": str(tmp_path / "none.jsonl")}
    card = measured_guard(ScopeJudge(), policy.model_copy(update=sources), budget=0.1)
    assert (card.thresholds.question, card.thresholds.answer) == (0.0, 0.0)


def test_a_card_reads_back_and_is_drawn_and_printed(policy: Policy, tmp_path: Path) -> None:
    from ontopic.commands.options import console

    card = measured_guard(ScopeJudge("words-<script>"), policy, budget=0.07)
    assert GuardCard.model_validate_json(card.model_dump_json()) == card
    page = tmp_path / "reports" / "guard.html"
    guard_report(card, policy, out=page)
    text = text_of(page)
    assert f"The guard stops {1 - card.both.leak.value:.1%} of what must not go out" in text
    assert "7.0% of that may be stopped" in text
    for what in ("Errors of the guard alone", "over-refusal within its budget", "chosen: 0.4", policy.sha256):
        assert what in text, what
    assert "What it does to real traffic" in text
    assert "words-<script>" in text and "words-<script>" not in page.read_text()
    with console.capture() as screen:
        console.print(guard_screen(card, page))
    assert "* 0.40" in screen.get()
    assert str(card.question.held_out) in screen.get()


@pytest.mark.parametrize("content", [None, "{", "{}"], ids=["missing", "malformed", "of another release"])
def test_a_card_that_cannot_be_read_is_said_to(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ontopic-x.guard.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match="calibrate"):
        load_guard(path)
