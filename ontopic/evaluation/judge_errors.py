"""Does the judge err on the challenger as it does on the champion? What a person's labels of their answers say.

The judge that decides also labelled what the challenger was trained on, so a challenger can learn to please it: the
judge overlooks more of its failures than of the champion's, and no number that the judge counts shows it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from ontopic.config.policy import GateLimits
from ontopic.data.labelled import LabelledRecord
from ontopic.data.same_question import identity
from ontopic.evaluation.answers import Evaluation
from ontopic.evaluation.discordant import PAIRS, GatePairs, labelled_pairs, pairs_of
from ontopic.judges.cards.card import JudgeCard
from ontopic.records import Verdict
from ontopic.statistics.pairs import compare
from ontopic.statistics.rates import Rate
from ontopic.statistics.scores import score
from ontopic.statistics.two_phase import LabelledPairs, TrueDifference, true_difference

HOW = "python run.py label --by discordant"


class JudgeErrors(BaseModel):
    """How the judge errs on champion and challenger, as far as a person has labelled their answers.

    Attributes:
        discordant: this gate's pairs with different verdicts.
        agreeing: those with the same verdict on different answers.
        labelled_discordant, labelled_agreeing: pairs of which a person has labelled both answers, in this gate and in
            earlier ones of the same versions by the same judge.
        wanted_discordant, wanted_agreeing: how many labelled pairs are needed before they count.
        asked_for: whether the policy wants them before a promotion.
        found: what the labels say; ``None`` while they are too few to count.
        card_specificity: the judge's, on the records of its card.
        tipping: at which specificity of the judge on the challenger's failures the improvement would no longer be
            shown, were it on the champion's what its card says; ``None`` where it is not shown, or none would change
            that.
    """

    model_config = ConfigDict(frozen=True)
    discordant: int
    agreeing: int
    labelled_discordant: int
    labelled_agreeing: int
    wanted_discordant: int
    wanted_agreeing: int
    asked_for: bool
    found: TrueDifference | None
    card_specificity: Rate
    tipping: float | None

    @property
    def left(self) -> int:
        """How many discordant pairs more a person has to label until as many are labelled as this gate has.

        From then on it is all the same how the judge errs: people have said as much as the judge.
        """
        return max(0, self.discordant - self.labelled_discordant)

    def verdict(self, limit: float) -> tuple[bool, str]:
        """Whether the judge's errors stand in the way of a promotion, and one or two sentences that say why.

        Args:
            limit: what the lower bound of the improvement must exceed.
        """
        if self.found is None:
            return not self.asked_for, f"{self._not_known()} {self._tipping_point()}"
        found, shown = self.found, self.found.improvement
        corrected = (
            f"corrected by {self.labelled_discordant:,} labelled pairs with different verdicts and "
            f"{self.labelled_agreeing:,} with the same, the improvement is {shown.with_interval}"
        )
        if found.differ and self.left:
            return False, (
                f"the judge errs otherwise on the challenger than on the champion ({_errors_in_words(found)}); "
                f"{self.labelled_discordant:,} discordant pairs are labelled: label {self.left:,} more with "
                f"`{HOW} -n {self.discordant}`, so that people decide and not the judge; {corrected}"
            )
        met = shown.low > limit
        return (
            met,
            f"{corrected}, and its lower bound is {'' if met else 'not '}above {limit:g} ({_errors_in_words(found)})",
        )

    def _not_known(self) -> str:
        wanted = max(self.wanted_discordant, self.wanted_agreeing)
        number = f" -n {wanted}" if wanted > PAIRS else ""
        return (
            "the judge's errors on champion and challenger were not compared by a person: of "
            f"{self.wanted_discordant:,} discordant pairs {self.labelled_discordant:,} are labelled, of "
            f"{self.wanted_agreeing:,} with the same verdict {self.labelled_agreeing:,}; label them with "
            f"`{HOW}{number}`."
        )

    def _tipping_point(self) -> str:
        if self.tipping is None:
            return ""
        return (
            f"The improvement would no longer be shown if the judge failed only {self.tipping:.0%} of the challenger's "
            f"failures or fewer; on the records of its card it fails {self.card_specificity.value:.0%}."
        )


def _errors_in_words(found: TrueDifference) -> str:
    ours, theirs = found.challenger, found.champion
    return (
        f"specificity {theirs.specificity} on the champion, {ours.specificity} on the challenger, "
        f"p = {found.p_specificity:.2g}; sensitivity {theirs.sensitivity} and {ours.sensitivity}, "
        f"p = {found.p_sensitivity:.2g}"
    )


def judge_errors(
    champion: Evaluation,
    challenger: Evaluation,
    *,
    labels: Sequence[LabelledRecord],
    earlier: Sequence[GatePairs],
    card: JudgeCard,
    limits: GateLimits,
    registered_model: str,
) -> JudgeErrors:
    """What a person's labels say of the judge's errors on both models, and what is not known without them.

    Args:
        champion, challenger: on the same questions in the same order.
        labels: of answers drawn by ``discordant``.
        earlier: pairs of other gates, of which those of the same models by the same judge count too.
        card: of the judge, told the scope.
    """
    pairs = pairs_of(champion, challenger, registered_model=registered_model)
    others = [each for each in earlier if each.is_of_same_models(pairs) and each.sample_id != pairs.sample_id]
    known = {identity(pair.request) for pair in (*pairs.discordant, *pairs.agreeing)}
    more = {
        (identity(pair.request), pair.champion, pair.challenger): pair
        for each in others
        for pair in (*each.discordant, *each.agreeing)
        if identity(pair.request) not in known  # asked again
    }
    pool = [*pairs.discordant, *pairs.agreeing, *more.values()]
    verdicts, said = labelled_pairs(pool, labels)
    labelled = LabelledPairs(
        verdicts=np.array(verdicts, dtype=bool).reshape(-1, 2), labels=np.array(said, dtype=bool).reshape(-1, 2)
    )
    wins, losses, same = (int(stratum.sum()) for stratum in labelled.strata)
    wanted = limits.discordant_labels or PAIRS
    counts = {
        "labelled_discordant": wins + losses,
        "labelled_agreeing": same,
        "wanted_discordant": min(wanted, len(pairs.discordant)),
        "wanted_agreeing": min(wanted, len(pairs.agreeing)),
    }
    enough = wins + losses >= counts["wanted_discordant"] and same >= counts["wanted_agreeing"]
    won = sum(pair.passes[1] for pair in pairs.discordant)
    found = true_difference(
        labelled, wins=won, losses=len(pairs.discordant) - won, agreeing=len(pairs.agreeing), same=pairs.same
    )
    return JudgeErrors(
        discordant=len(pairs.discordant),
        agreeing=len(pairs.agreeing),
        asked_for=limits.discordant_labels > 0,
        found=found if enough and labelled.labels.size else None,
        card_specificity=card.specificity,
        tipping=tipping_specificity(champion.verdicts, challenger.verdicts, card=card, limit=limits.improvement),
        **counts,
    )


def tipping_specificity(
    champion: Sequence[Verdict], challenger: Sequence[Verdict], *, card: JudgeCard, limit: float
) -> float | None:
    """The greatest specificity on the challenger's failures at which its improvement would not be shown.

    With the card's errors on the champion, and its sensitivity on both, a specificity s on the challenger's failures
    adds (1 - truth) (specificity of the card - s) to the difference, where the truth is what the challenger's pass rate
    says at s. That must stay under what the lower bound exceeds the limit by.

    Returns:
        ``None`` where the improvement is not shown as it is, or would be at any specificity.
    """
    found, passed = compare(champion, challenger), score(challenger).guardrail_score
    shown = found.low - limit
    sensitivity, specificity = card.sensitivity.value, card.specificity.value
    if not found.n or not shown > 0 or not card.sensitivity.n or not card.specificity.n:
        return None
    missing = sensitivity - passed.value  # failures seen, beside what the judge wrongs
    if missing <= 0:
        return None
    tipping = (missing * specificity + shown * (1 - sensitivity)) / (missing + shown)
    return tipping if 0 <= 1 - sensitivity < tipping else None
