"""The judge card: how good a judge is on labelled records, and what it costs."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PrivateAttr, RootModel

from ontopic.config.policy import Policy
from ontopic.data.by_language import language_name
from ontopic.data.labelled import LabelledRecord
from ontopic.errors import UserError
from ontopic.judges.judge import none_judged
from ontopic.records import Verdict
from ontopic.statistics.agreement import kappa
from ontopic.statistics.rates import NumberOrNaN, Rate, rate

SHARES = ("accuracy", "kappa", "sensitivity", "specificity")
Origin = Literal["templates", "traffic", "discordant"]
_BINS = 10
_CELLS = ((True, True), (True, False), (False, True), (False, False))  # label and verdict: pass, fail


class ScoreBin(BaseModel):
    """The judged records whose score is in one tenth of [0, 1].

    Attributes:
        mean_score: what the judge says: the mean of its probabilities of a pass.
        passing: what the labels say: the share labelled pass.
    """

    model_config = ConfigDict(frozen=True)
    mean_score: float
    passing: Rate


class Group(BaseModel):
    """The labelled records of one intent, of one kind of answer where there is no intent, or of one language.

    Attributes:
        n: how many there are; the other counts add up to it.
        right: verdict and label agree.
        false_fails: labelled pass, judged fail.
        false_passes: labelled fail, judged pass.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    n: int
    right: int
    false_fails: int
    false_passes: int
    unjudged: int


class Usage(BaseModel):
    """What judging took, per 1,000 records that got a verdict.

    Attributes:
        records: on how many it was measured; verdicts that came from a cache took nothing and count in no number.
        seconds: by the clock, with as many requests at once as the judge is set to.
        usd: ``None`` where the price is not known; 0 for a judge that asks no LLM.
    """

    model_config = ConfigDict(frozen=True)
    records: int
    seconds: float
    usd: float | None
    prompt_tokens: float
    completion_tokens: float


class JudgeCard(BaseModel):
    """A judge against labels.

    Attributes:
        judge_id: whose card it is.
        origin: what the labelled records are: ``templates`` follow from the policy's questions and written records,
            ``traffic`` was drawn from it at random, ``discordant`` are answers on which champion and challenger differ.
        scope_given: whether the judge was told of each question whether it is in scope. The gate tells it, so such a
            card decides whether the judge may gate; traffic has no scope labels, so windows go by the other one.
        accuracy: share of judged records with the label's verdict.
        kappa: Cohen's kappa, in [-1, 1], with its score interval; see ``kappa``.
        sensitivity: share of the records labelled pass that the judge passes.
        specificity: share of the records labelled fail that the judge fails.
        unjudged: how many labelled records it could not judge.
        causes: how many of them for which cause, the most frequent first.
        calibration: the reliability diagram of its scores (DeGroot and Fienberg 1983): non-empty bins of equal width.
        brier: mean squared difference of score and label (Brier 1950), in [0, 1]; ``nan`` without a score.
        calibration_error: expected calibration error over these bins (Naeini et al. 2015, "Obtaining Well Calibrated
            Probabilities Using Bayesian Binning"), in [0, 1]; ``nan`` without a score.
        groups: confusion by intent or kind, the worst first.
        languages: confusion by the language of the question, the worst first.
        agreement: Krippendorff's alpha of a panel's members on these records; ``None`` for a single judge.
        usage: ``None`` where it was not measured.
        measured_at: in UTC; ``None`` where the card is not kept.
        labels_sha256: see ``labels_sha256``.
        criteria_sha256: see ``criteria_sha256``. A card is stale where one of the two or the judge's id has changed.
    """

    model_config = ConfigDict(frozen=True)
    judge_id: str
    origin: Origin = "templates"
    scope_given: bool = False
    accuracy: Rate
    kappa: Rate
    sensitivity: Rate
    specificity: Rate
    unjudged: int
    causes: dict[str, int] = Field(default_factory=dict)
    calibration: tuple[ScoreBin, ...] = ()
    brier: NumberOrNaN = math.nan
    calibration_error: NumberOrNaN = math.nan
    groups: tuple[Group, ...] = ()
    languages: tuple[Group, ...] = ()
    agreement: Rate | None = None
    usage: Usage | None = None
    measured_at: datetime | None = None
    labels_sha256: str = ""
    criteria_sha256: str = Field(
        default="",
        validation_alias=AliasChoices("criteria_sha256", "policy_sha256"),  # what older cards call it
    )

    @property
    def n(self) -> int:
        """How many labelled records it was measured on, judged or not."""
        return self.accuracy.n + self.unjudged

    def metrics(self) -> dict[str, float]:
        """The card flat, for a tracker: a share as ``name``, ``name_low``, ``name_high`` and ``name_n``.

        What is not known is left out, and so is its interval.
        """
        flat: dict[str, float] = {"n": self.n, "brier": self.brier, "calibration_error": self.calibration_error}
        for name in SHARES:
            numbers = getattr(self, name).model_dump()
            flat[name] = numbers.pop("value")
            known = ("low", "high", "n") if not math.isnan(flat[name]) else ("n",)
            flat |= {f"{name}_{part}": float(numbers[part]) for part in known}
        if self.agreement:
            flat["agreement"] = self.agreement.value
        if self.usage:
            per_1000 = self.usage.model_dump() | {"usd": math.nan if self.usage.usd is None else self.usage.usd}
            flat |= {f"{name}_per_1000": value for name, value in per_1000.items() if name != "records"}
        return {name: value for name, value in flat.items() if not math.isnan(value)} | {"unjudged": self.unjudged}

    def check_any_judged(self) -> None:
        """Raise where the card says nothing.

        Raises:
            UserError: there are labelled records, and none was judged.
        """
        if self.n and not self.accuracy.n:
            raise none_judged(self.n, next(iter(self.causes), None), what="labelled records")

    def __str__(self) -> str:
        lines = [f"{name:<12} {getattr(self, name)}" for name in SHARES]
        if self.agreement:
            lines.append(f"agreement    {self.agreement}")
        causes = "; ".join(f"{count} {cause}" for cause, count in list(self.causes.items())[:3])
        lines.append(f"unjudged     {self.unjudged}{f' ({causes})' if causes else ''}")
        if not math.isnan(self.brier):
            lines.append(
                f"scores       Brier {self.brier:.3f}, expected calibration error {self.calibration_error:.3f}"
            )
        if self.usage:
            cost = "at an unknown price" if self.usage.usd is None else f"${self.usage.usd:.4g}"
            lines.append(f"per 1,000    {self.usage.seconds:.3g} s, {cost}")
        lines.append(f"scope        {self.instrument}")
        return "\n".join([f"judge        {self.judge_id}", *lines])

    @property
    def in_line(self) -> str:
        """The shares with their intervals."""
        return ", ".join(f"{name} {getattr(self, name)}" for name in SHARES)

    @property
    def instrument(self) -> str:
        """How it was asked, in words."""
        return "told, as in the gate" if self.scope_given else "not told, as on traffic"


class JudgeCards(RootModel[list[JudgeCard]]):
    """Cards in an order, the gating judge's first, as steps pass them on.

    Attributes:
        pages: the files that they were just drawn in; kept with none of them, and so not there when loaded again.
    """

    _pages: tuple[Path, ...] = PrivateAttr(default=())

    @property
    def pages(self) -> tuple[Path, ...]:
        return self._pages

    def drawn_in(self, pages: Sequence[Path]) -> Self:
        """The same cards, with the pages that they were drawn in."""
        copy = self.model_copy()
        copy._pages = tuple(pages)
        return copy

    @property
    def gate(self) -> JudgeCard:
        """The gating judge's card as it judges in the gate: told the scope.

        Raises:
            UserError: it could not be measured so.
        """
        for card in self.root:
            if card.scope_given and card.judge_id == self.root[0].judge_id:
                return card
        raise UserError(
            "the gate tells the judge whether a question is in scope, and no labelled record of the calibration split "
            "says so; give them the field 'in_scope', or add questions to the split"
        )


def judge_card(judge_id: str, records: Sequence[LabelledRecord], *, verdicts: Sequence[Verdict]) -> JudgeCard:
    """Compare verdicts with labels; records without a label, and unjudged ones, count in none of the shares.

    Raises:
        ValueError: records and verdicts are not equally many.
    """
    labelled = [(r, v) for r, v in zip(records, verdicts, strict=True) if r.label is not None]
    judged = [(r.label == "pass", v.outcome == "pass") for r, v in labelled if v.outcome != "unjudged"]
    scored = [(v.score, r.label == "pass") for r, v in labelled if v.outcome != "unjudged" and v.score is not None]
    passes = [said for label, said in judged if label]
    fails = [said for label, said in judged if not label]
    causes = Counter(v.cause or "no cause given" for _, v in labelled if v.outcome == "unjudged")
    bins = _bins(scored)
    gaps = [bin_.passing.n * abs(bin_.mean_score - bin_.passing.value) for bin_ in bins]
    return JudgeCard(
        judge_id=judge_id,
        accuracy=rate(sum(label == said for label, said in judged), len(judged)),
        kappa=kappa([judged.count(cell) for cell in _CELLS]),
        sensitivity=rate(sum(passes), len(passes)),
        specificity=rate(sum(not said for said in fails), len(fails)),
        unjudged=len(labelled) - len(judged),
        causes=dict(causes.most_common()),
        calibration=bins,
        brier=sum((score - label) ** 2 for score, label in scored) / len(scored) if scored else math.nan,
        calibration_error=sum(gaps) / len(scored) if scored else math.nan,
        groups=_groups([(r.intent or r.kind or "not named", r, v) for r, v in labelled]),
        languages=_groups([(language_name(r.question), r, v) for r, v in labelled]),
        labels_sha256=labels_sha256(records),
    )


def labels_sha256(records: Sequence[LabelledRecord]) -> str:
    """sha256 (hex) of everything in the labelled records that a card depends on, in their order."""
    rows = [r.model_dump(mode="json", exclude={"why", "split"}) for r in records if r.label is not None]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def criteria_sha256(policy: Policy) -> str:
    """sha256 (hex) of the criteria: what of the policy a judge goes by, and so no thresholds, limits or data."""
    goes_by = {"subject", "definition", "border", "rubric", "examples", "refusal"}
    goes_by |= {key for key in ("refusals", "languages") if getattr(policy, key)}  # cards of before they were keys hold
    content = json.dumps(policy.model_dump(mode="json", include=goes_by), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _bins(scored: Sequence[tuple[float, bool]]) -> tuple[ScoreBin, ...]:
    bins: dict[int, list[tuple[float, bool]]] = {}
    for score, label in scored:
        bins.setdefault(min(int(score * _BINS), _BINS - 1), []).append((score, label))
    return tuple(
        ScoreBin(
            mean_score=sum(score for score, _ in each) / len(each),
            passing=rate(sum(label for _, label in each), len(each)),
        )
        for _, each in sorted(bins.items())
    )


def _groups(labelled: Sequence[tuple[str, LabelledRecord, Verdict]]) -> tuple[Group, ...]:
    cells: dict[str, Counter[str]] = {}
    for name, record, verdict in labelled:
        if verdict.outcome == "unjudged":
            cell = "unjudged"
        elif verdict.outcome == record.label:
            cell = "right"
        else:
            cell = "false_fails" if verdict.outcome == "fail" else "false_passes"
        cells.setdefault(name, Counter())[cell] += 1
    columns = ("right", "false_fails", "false_passes", "unjudged")
    groups = [Group(name=name, n=n.total(), **{column: n[column] for column in columns}) for name, n in cells.items()]
    # The most errors first, and of equally many those of the smaller group.
    return tuple(sorted(groups, key=lambda g: (-g.false_fails - g.false_passes, -g.unjudged, g.n, g.name)))
