"""The gate: may the challenger take the champion's place?

Each number is computed once, then held against the policy's limits by the functions in ``_TESTS``. To add a test, write
a function there: it is given the numbers and the limits, and returns what it found, or ``None`` where it has nothing to
test. ``gate_page`` draws whatever was decided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ontopic.config.policy import GateLimits, Policy
from ontopic.errors import UserError
from ontopic.evaluation.answers import Evaluation
from ontopic.evaluation.preference import preferred
from ontopic.evaluation.quality import Quality, difference, perplexity_ratio
from ontopic.judges.cards.card import JudgeCard, criteria_sha256
from ontopic.statistics.limits import Bound, Relation, hold
from ontopic.statistics.pairs import Comparison, compare
from ontopic.statistics.rates import Rate
from ontopic.statistics.scores import Scores, score

IMPROVEMENT = "Improvement, challenger minus champion"
SIMILARITY = "Cosine similarity to the references, challenger minus champion"
PREFERENCE = "Preferred answers, challenger minus champion"
PERPLEXITY = "Perplexity on general text, challenger to champion"


class GateTest(BaseModel):
    """What one test of the gate found.

    Attributes:
        passed: a test of a bound fails where no record was judged that could show it.
        description: one sentence with the numbers: bound, limit and n.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    passed: bool
    description: str


class Numbers(BaseModel):
    """What the gate's tests read.

    Attributes:
        comparison: champion and challenger question by question.
        quality: by how much the cosine similarity of answers in scope to their references has grown; of no question
            where there is no reference.
        preference: by how much a judge that is an LLM prefers the challenger's answers in scope; ``None`` of any other.
        perplexity: challenger's to champion's, on one text and so without an interval; ``None`` in decisions of before
            it was kept.
        alpha: two-sided level of the test of the improvement.
    """

    model_config = ConfigDict(frozen=True)
    champion: Scores
    challenger: Scores
    comparison: Comparison
    quality: Rate
    preference: Rate | None
    perplexity: Rate | None = None
    alpha: float = 0.05


class Decision(Numbers):
    """What the gate decided and on what.

    Attributes:
        passed: whether every test passed.
        sealed: both models on the sealed questions; ``None`` where they were not opened.
        report: Evidently's page.
    """

    passed: bool
    tests: list[GateTest]
    limits: GateLimits
    sealed: Comparison | None = None
    report: Path


class Evaluated(BaseModel):
    """One of the gate's two models: its judged answers, and how good those in scope are."""

    model_config = ConfigDict(frozen=True)
    evaluation: Evaluation
    quality: Quality


def check_judge(card: JudgeCard, policy: Policy) -> None:
    """Let the judge's verdicts decide on a promotion only where its card is fresh and good enough.

    Raises:
        UserError: the policy has changed since the card was measured, or a lower bound is under the policy's bar.
    """
    if card.criteria_sha256 != criteria_sha256(policy):
        raise UserError(
            f"the card of judge {card.judge_id} is stale: policy {policy.name!r} has changed since it was measured; "
            "measure it again with `python run.py calibrate`"
        )
    for name in ("accuracy", "kappa"):
        share, bar = getattr(card, name), getattr(policy.judge_bar, name)
        if share.n == 0 or not share.low >= bar:
            raise UserError(
                f"judge {card.judge_id} may not gate: its {name} is {share}, and the lower bound must reach {bar:g} "
                f"(judge_bar of policy {policy.name!r}); label more records with `python run.py label`, "
                "or configure a better judge"
            )


def decide(
    champion: Evaluated,
    challenger: Evaluated,
    *,
    winners: Sequence[str],
    policy: Policy,
    card: JudgeCard,
    report: Path,
    alpha: float = 0.05,
) -> Decision:
    """Hold the challenger against the champion and the policy's limits, on both models' answers to the same questions.

    Args:
        champion, challenger: on the same questions in the same order.
        winners: as ``preference.winners_in_pairs`` gives them; empty where the judge is not an LLM.
        card: of the judge that gave these verdicts.
        report: where the page on this decision is to be; it is not written here.
        alpha: two-sided level of this gate's test of the improvement.

    Raises:
        UserError: the judge may not gate: its card is under the policy's bar, stale, or another judge's.
        ValueError: the questions differ.
    """
    check_judge(card, policy)
    before, after = champion.evaluation, challenger.evaluation
    judges = {verdict.judge_id for verdict in (*before.verdicts, *after.verdicts)}
    if others := sorted(judges - {card.judge_id}):
        raise UserError(
            f"the card of judge {card.judge_id} is stale: these verdicts are by {others[0]}, whose template, model or "
            "settings differ; measure it with `python run.py calibrate`"
        )
    if [record.question for record in before.records] != [record.question for record in after.records]:
        raise ValueError("champion and challenger did not answer the same questions in the same order")
    numbers = Numbers(
        champion=score(before.verdicts),
        challenger=score(after.verdicts),
        comparison=compare(before.verdicts, after.verdicts),
        quality=difference(champion.quality, challenger.quality),
        preference=preferred(winners) if winners else None,
        perplexity=perplexity_ratio(champion.quality, challenger.quality),
        alpha=alpha,
    )
    tests = [found for test in _TESTS if (found := test(numbers, policy.gate))]
    passed = all(test.passed for test in tests)
    return Decision(**dict(numbers), passed=passed, tests=tests, limits=policy.gate, report=report)


def _guardrail_score(of: Numbers, limits: GateLimits) -> GateTest:
    share = of.challenger.guardrail_score
    return _test("Guardrail score", share, bound="low", relation="at least", limit=limits.guardrail_score)


def _improvement(of: Numbers, limits: GateLimits) -> GateTest:
    held, note, limit = of.comparison.rate_at(of.alpha), of.comparison.note, limits.improvement
    return _test(IMPROVEMENT, held, bound="low", relation="above", limit=limit, note=note, alpha=of.alpha)


def _over_refusal(of: Numbers, limits: GateLimits) -> GateTest:
    share = of.challenger.over_refusal
    return _test("Over-refusal", share, bound="high", relation="at most", limit=limits.over_refusal)


def _leak(of: Numbers, limits: GateLimits) -> GateTest:
    return _test("Leak", of.challenger.leak, bound="high", relation="at most", limit=limits.leak)


def _quality(of: Numbers, limits: GateLimits) -> GateTest | None:
    if not of.quality.n:
        return None
    return _test(SIMILARITY, of.quality, bound="low", relation="above", limit=-limits.quality_loss)


def _preference(of: Numbers, limits: GateLimits) -> GateTest | None:
    if of.preference is None:
        return None
    return _test(PREFERENCE, of.preference, bound="low", relation="above", limit=-limits.preference_loss)


def _perplexity(of: Numbers, limits: GateLimits) -> GateTest | None:
    if of.perplexity is None:
        return None
    return _test(PERPLEXITY, of.perplexity, bound="value", relation="at most", limit=limits.perplexity_ratio)


_TESTS: tuple[Callable[[Numbers, GateLimits], GateTest | None], ...] = (
    _guardrail_score,
    _improvement,
    _over_refusal,
    _leak,
    _quality,
    _preference,
    _perplexity,
)


def _test(
    title: str,
    rate: Rate,
    *,
    bound: Bound,
    relation: Relation,
    limit: float,
    note: str = "",
    alpha: float = 0.05,
) -> GateTest:
    held = hold(title, rate, bound=bound, relation=relation, limit=limit, note=note, alpha=alpha)
    return GateTest(name=held.name, passed=held.passed, description=f"{title}: {held.description}")
