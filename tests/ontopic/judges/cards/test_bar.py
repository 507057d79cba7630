"""Whether a judge is good enough, by how much, and what its card does not say."""

from __future__ import annotations

import pytest

from ontopic.config.policy import JudgeBar, Policy
from ontopic.judges.cards.bar import bar_tests, may_gate, use_in_words
from ontopic.judges.cards.card import Group, JudgeCard
from ontopic.judges.cards.unknowns import unknowns
from ontopic.statistics.rates import Rate, rate

BAR = JudgeBar(accuracy=0.85, kappa=0.65)


def card(accuracy: Rate, kappa: Rate, **of_all: object) -> JudgeCard:
    given = {"judge_id": "j", "scope_given": True, "unjudged": 0} | of_all
    shares = {"sensitivity": rate(90, 100), "specificity": rate(90, 100)} | of_all
    return JudgeCard.model_validate(given | shares | {"accuracy": accuracy, "kappa": kappa})


def test_a_judge_over_both_bars_may_gate_and_the_page_says_by_how_much() -> None:
    good = card(Rate(value=0.95, low=0.92, high=0.97, n=200), Rate(value=0.9, low=0.8, high=0.95, n=200))
    assert may_gate(good, BAR)
    assert use_in_words(good, BAR) == (
        "Good enough to gate: yes. Its accuracy is at least 0.920, 0.070 over the bar of 0.85 and kappa is at least "
        "0.800, 0.150 over the bar of 0.65."
    )
    assert [round(test.margin or 0, 9) for test in bar_tests(good, BAR)] == [0.07, 0.15]


@pytest.mark.parametrize(
    ("accuracy", "kappa"),
    [
        (Rate(value=0.95, low=0.849, high=0.97, n=200), Rate(value=0.9, low=0.8, high=0.95, n=200)),
        (Rate(value=0.95, low=0.92, high=0.97, n=200), Rate(value=0.9, low=0.649, high=0.95, n=200)),
    ],
    ids=["accuracy", "kappa"],
)
def test_a_judge_under_one_bar_may_not(accuracy: Rate, kappa: Rate) -> None:
    assert not may_gate(card(accuracy, kappa), BAR)
    said = use_in_words(card(accuracy, kappa), BAR)
    assert said.startswith("Good enough to gate: no.") and "0.001 under the bar of" in said


def test_a_judge_without_a_verdict_is_good_enough_for_nothing() -> None:
    none = rate(0, 0)
    assert not may_gate(card(none, none), BAR)
    assert use_in_words(card(none, none), BAR).startswith("Good enough for nothing yet")
    assert [(test.margin, test.passed) for test in bar_tests(card(none, none), BAR)] == [(None, False)] * 2


def test_a_card_of_traffic_is_held_against_chance_and_not_against_the_bar() -> None:
    low = Rate(value=0.6, low=0.5, high=0.7, n=200)
    assert "watch traffic: yes" in use_in_words(card(low, low, scope_given=False), BAR)
    coin = {"sensitivity": rate(50, 100), "specificity": rate(50, 100), "scope_given": False}
    assert "watch traffic: no" in use_in_words(card(low, low, **coin), BAR)


def test_what_is_not_known_is_said(banking: Policy) -> None:
    group = Group(name="en", n=180, right=170, false_fails=5, false_passes=5, unjudged=0)
    languages = (group, group.model_copy(update={"name": "de", "n": 7}), group.model_copy(update={"name": "unsure"}))
    policy = banking.model_copy(update={"languages": ["en", "de", "ja"]})
    found = " ".join(unknowns(card(rate(1, 2), rate(1, 2), unjudged=3, languages=languages, groups=languages), policy))
    for said in ("Whether an answer is true", "real traffic", "3 records that it could not", "in ja: no", "de (7)"):
        assert said in found, said
    assert "1 of 3 intents" in found and "unsure" not in found
    assert "another card" in " ".join(unknowns(card(rate(1, 2), rate(1, 2), scope_given=False), policy))
    of_traffic = unknowns(card(rate(1, 2), rate(1, 2), origin="traffic"), banking)
    assert not any("real traffic" in each for each in of_traffic)
