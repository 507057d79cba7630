"""What verdicts on a stretch of traffic say of its guardrail score, and why they may say nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from ontopic.monitoring.totals import Counted, Totals, add_up
from ontopic.records import Judged
from ontopic.statistics.rates import Rate, rate

if TYPE_CHECKING:
    from ontopic.config.policy import Policy
    from ontopic.judges.cards.card import JudgeCard
    from ontopic.judges.cards.traffic_card import TrafficLabels

MISFIT = 0.01
"""Where a raw score at least so extreme is less likely than that under every true score, the card does not fit."""


class WindowLimits(BaseModel):
    """What a window is held against.

    Attributes:
        threshold: least guardrail score, in [0, 1].
        least_records: with fewer judged records it is ``unknown``.
        most_unjudged: with a greater share of unjudged ones too.
    """

    model_config = ConfigDict(frozen=True)
    threshold: float
    least_records: int = 50
    most_unjudged: float = 0.05


def limits_of(policy: Policy) -> WindowLimits:
    """What the policy holds windows against."""
    return WindowLimits(
        threshold=policy.alert_threshold, least_records=policy.least_records, most_unjudged=policy.most_unjudged
    )


class Standing(BaseModel):
    """What is known of a stretch's guardrail score.

    Attributes:
        score: with the judge's error taken out where ``is_corrected``, else as the judge has it; its interval counts
            records of one conversation as alike.
        labels: how many labels of the traffic say how the judge errs on it.
        sensitivity, specificity: what share of the good answers the judge passes, and of the bad ones it fails, by
            these labels; ``None`` where the score is not corrected, and in results of earlier releases.
        fit_p_value: how likely the judge's share of passes is at least so extreme, whatever the true score;
            ``None`` where no card was used, or nothing is known anyway.
        unknown_because: why it is not known where the score stands, in a sentence; empty where it is.
        allows_alarm: whether that leaves the chart's alarm as it is: too few records were judged, which the chart adds
            to those before, or fewer pass than the card allows of any traffic, which can only be bad.
    """

    model_config = ConfigDict(frozen=True)
    score: Rate
    is_corrected: bool
    labels: int = 0
    sensitivity: Rate | None = None
    specificity: Rate | None = None
    fit_p_value: float | None = None
    unknown_because: str = ""
    allows_alarm: bool = False

    @property
    def in_words(self) -> str:
        """Whether the score is corrected and, where it is not, which command asks for how many labels; and why it may
        not be known where it stands."""
        said = f"corrected by {self.labels:,} labels of this traffic."
        if not self.is_corrected:
            said = uncorrected_in_words(self.labels)
        return said + (f" Unknown: {self.unknown_because}." if self.unknown_because else "")


def uncorrected_in_words(labels: int) -> str:
    """That a score is not corrected, and which command asks for how many labels more.

    Args:
        labels: how many there are.
    """
    from ontopic.judges.cards.traffic_card import LEAST_LABELS

    more = max(0, LEAST_LABELS - labels)
    has = f"{labels} of its records carry a random label" if labels else "none of its records carries a random label"
    return (
        f"uncorrected: the judge's error on this traffic is unknown, as {has}. Label {more} more: "
        f"python run.py label --by random -n {more}."
    )


def standing(
    judged: Judged | Totals,
    card: JudgeCard,
    *,
    limits: WindowLimits,
    labels: TrafficLabels | None = None,
    version: str = "",
) -> Standing:
    """What is known of the guardrail score of records of one model version.

    With labels of these very records it is the efficient estimate, with labels of the version's other records alone
    the Rogan-Gladen one; see ``ontopic.statistics.correction.corrected``. With fewer than ``LEAST_LABELS`` it stays
    as the judge has it: a card of templates corrects nothing.

    Args:
        judged: the records, or what they add up to, with the verdicts on those that carry a label.
        card: of the judge, on templates; says only whether it is better than chance.
        labels: of the policy's traffic.
        version: whose records these are.
    """
    # scipy: who only reads results need not wait for it
    from ontopic.statistics.clusters import clustered_rate
    from ontopic.statistics.correction import corrected, fit_p_value

    known = labels.of(version) if labels else []
    right_labels = {r.record_id: r.label == "pass" for r, _ in known}
    totals = add_up([judged], labelled=right_labels, most=len(judged.records)) if isinstance(judged, Judged) else judged
    kept = zip(totals.kept.records, totals.kept.verdicts, strict=True)
    pairs = [(r, v.outcome == "pass") for r, v in kept if v.outcome != "unjudged"]
    raw = clustered_rate([passed for _, passed in pairs], [r.conversation for r, _ in pairs], of_all=totals.judged)
    errors = labels.card(version) if labels else None
    unjudged = totals.scores.unjudged
    if errors is None:
        return _as_judged(raw, card, unjudged=unjudged, labels=len(known), limits=limits)
    inside = {record_id: right_labels[record_id] for record_id in totals.labelled}
    beside = Counted(totals.passes - sum(totals.labelled.values()), raw.n - len(inside))
    share, alone = _shares([(passed, r.conversation) for r, passed in pairs if r.id not in inside], beside)
    right = corrected(
        alone,
        errors.sensitivity,
        specificity=errors.specificity,
        labelled=rate(sum(inside.values()), len(inside)),
    ).model_copy(update={"n": raw.n})
    at_chance = _at_chance([card, errors])
    reason = at_chance or _unknown(right, unjudged, limits=limits)
    p = None if reason else fit_p_value(alone, errors)
    misfit = p is not None and p < MISFIT
    if misfit:
        reason = _misfit(share, errors, p=p)
    return Standing(
        score=right,
        is_corrected=True,
        labels=len(known),
        sensitivity=errors.sensitivity,
        specificity=errors.specificity,
        fit_p_value=p,
        unknown_because=reason,
        allows_alarm=not at_chance
        and (0 < right.n < limits.least_records or (misfit and alone.value < 1 - errors.specificity.value)),
    )


def _as_judged(raw: Rate, card: JudgeCard, *, unjudged: int, labels: int, limits: WindowLimits) -> Standing:
    """The score as the judge has it, where too few labels are known to correct it."""
    at_chance = _at_chance([card])
    return Standing(
        score=raw,
        is_corrected=False,
        labels=labels,
        unknown_because=at_chance or _unknown(raw, unjudged, limits=limits),
        allows_alarm=not at_chance and 0 < raw.n < limits.least_records,
    )


def _shares(passes: Sequence[tuple[bool, str]], of_all: Counted) -> tuple[Rate, Rate]:
    """The share of passes, by record, and with as many records as those of one conversation, being alike, count for."""
    from ontopic.statistics.clusters import effective_of_all

    share = rate(*of_all)
    effective = effective_of_all([each for each, _ in passes], [chat for _, chat in passes], n=of_all.n)
    return share, share.model_copy(update={"n": round(effective)})


def _misfit(share: Rate, errors: JudgeCard, *, p: float | None) -> str:
    from ontopic.judges.cards.traffic_card import LEAST_LABELS

    return (
        f"the judge's card does not fit this traffic: it passes {share}, which with its sensitivity "
        f"{errors.sensitivity} and specificity {errors.specificity} no true score explains (p = {p:.2g}); "
        f"label records of now: python run.py label --by random -n {LEAST_LABELS}"
    )


def _unknown(score: Rate, unjudged: int, *, limits: WindowLimits) -> str:
    """Why nothing is known of a score, other than by the judge's cards."""
    if score.n == 0:
        return "no record could be judged"
    if score.n < limits.least_records:
        return f"{score.n} judged records are fewer than {limits.least_records}, the least that say something"
    share = unjudged / (score.n + unjudged)
    if share > limits.most_unjudged:
        return f"{share:.1%} of the records are unjudged, more than {limits.most_unjudged:.0%}"
    if score.low <= 0 and score.high >= 1:
        return "the score's interval leaves everything open"
    return ""


def _at_chance(cards: list[JudgeCard]) -> str:
    """That a judge is not shown to be better than chance; empty where it is, on each of the cards."""
    from ontopic.statistics.correction import youden_low

    for each in cards:
        if youden_low(each) <= 0:
            on = "labelled traffic" if each.origin == "traffic" else "its labelled records"
            return (
                f"on {on} the judge is not shown to be better than chance: sensitivity {each.sensitivity}, "
                f"specificity {each.specificity}"
            )
    return ""
