"""A judge's card against the policy's bar: whether its verdicts may promote a model, and by how much."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from ontopic.config.policy import JudgeBar
from ontopic.judges.cards.card import JudgeCard
from ontopic.statistics.rates import Rate


class BarTest(BaseModel):
    """A lower bound of the card against the least that the policy asks for.

    Attributes:
        margin: how far over the bar it is; negative where under it, ``None`` where nothing was judged.
    """

    model_config = ConfigDict(frozen=True)
    name: Literal["accuracy", "kappa"]
    share: Rate
    bar: float
    margin: float | None
    passed: bool


def bar_tests(card: JudgeCard, bar: JudgeBar) -> list[BarTest]:
    """The card's lower bounds against the bar. Only a card that was told the scope decides whether a judge may gate."""
    return [_held("accuracy", card.accuracy, bar=bar.accuracy), _held("kappa", card.kappa, bar=bar.kappa)]


def _held(name: Literal["accuracy", "kappa"], share: Rate, *, bar: float) -> BarTest:
    margin = share.low - bar if share.n else None
    return BarTest(name=name, share=share, bar=bar, margin=margin, passed=share.n > 0 and share.low >= bar)


def may_gate(card: JudgeCard, bar: JudgeBar) -> bool:
    """Whether a judge that was told the scope may gate: both lower bounds reach the bar."""
    return all(test.passed for test in bar_tests(card, bar))


def use_in_words(card: JudgeCard, bar: JudgeBar) -> str:
    """What the card says the judge is good enough for, in a sentence with the bars and by how much.

    One that was told the scope is held against the bar. One that was not is what traffic is judged by: windows are
    ``unknown`` by a judge that is not shown to be better than chance, whatever its accuracy.
    """
    from ontopic.statistics.correction import youden_low  # numpy: who only reads bars need not wait for it

    if not card.accuracy.n:
        return "Good enough for nothing yet: it judged none of the labelled records."
    if not card.scope_given:
        low = youden_low(card)
        found = f"Its sensitivity and specificity are together at least {max(0.0, 1 + low):.2f}; chance gives 1."
        if low > 0:
            return f"Good enough to watch traffic: yes, it is better than chance. {found}"
        return f"Good enough to watch traffic: no, it is not shown to be better than chance. {found}"
    tests = bar_tests(card, bar)
    parts = " and ".join(
        f"{test.name} is at least {test.share.low:.3f}, {abs(test.margin or 0.0):.3f} "
        f"{'over' if test.passed else 'under'} the bar of {test.bar:g}"
        for test in tests
    )
    return f"Good enough to gate: {'yes' if all(test.passed for test in tests) else 'no'}. Its {parts}."
