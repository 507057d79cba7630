"""What a judge's card does not say, and what a reader must not take from it."""

from __future__ import annotations

from ontopic.config.policy import Policy
from ontopic.data.by_language import UNSURE
from ontopic.judges.cards.card import JudgeCard
from ontopic.judges.cards.traffic_card import LEAST_LABELS

FEW = 20
"""Of fewer labelled records of a language or an intent hardly anything is known: 20 without a mistake leave 16 % of
errors open."""


def unknowns(card: JudgeCard, policy: Policy) -> list[str]:
    """A sentence for each thing that is not known about the judge, the most important first."""
    found = [
        "Whether an answer is true. The judge says whether it keeps to the subject, and not whether what it says is "
        "right."
    ]
    if card.origin == "templates":
        found.append(
            "How it errs on real traffic. These records follow from the policy's questions and written answers; only "
            f"labels of randomly drawn traffic say it: python run.py label --by random -n {LEAST_LABELS}."
        )
    if not card.scope_given:
        found.append(
            "How it judges in the gate, where it is told whether a question is in scope: that is another card."
        )
    if card.unjudged:
        found.append(
            f"What it would say of the {card.unjudged:,} records that it could not judge; no share counts them."
        )
    return [*found, *_languages(card, policy), *_groups(card)]


def _languages(card: JudgeCard, policy: Policy) -> list[str]:
    known = {group.name: group.n for group in card.languages if group.name != UNSURE}
    few = [f"{name} ({n:,})" for name, n in known.items() if n < FEW]
    none = [name for name in policy.languages if name not in known]
    found = []
    if none:
        found.append(f"How it judges in {', '.join(none)}: no labelled record is in it.")
    if few:
        found.append(f"How it judges in {', '.join(few)}: of fewer than {FEW} records each, hardly anything is known.")
    if not policy.languages and known:
        found.append(f"How it judges in any language but {', '.join(known)}: no labelled record is in another one.")
    return found


def _groups(card: JudgeCard) -> list[str]:
    few = sum(group.n < FEW for group in card.groups)
    if not few:
        return []
    return [
        f"How it judges single intents: {few:,} of {len(card.groups):,} intents or kinds have fewer than {FEW} records."
    ]
