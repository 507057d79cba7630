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
from ontopic.evaluation.judge_errors import JudgeErrors
from ontopic.evaluation.lineage import Lineage
from ontopic.evaluation.preference import preferred
from ontopic.evaluation.quality import Quality, difference, perplexity_ratio
from ontopic.judges.cards.card import JudgeCard, criteria_sha256
from ontopic.records import Verdict
from ontopic.statistics.limits import Bound, Held, Relation, hold
from ontopic.statistics.pairs import Comparison, compare, compare_unjudged
from ontopic.statistics.rates import Rate
from ontopic.statistics.scores import Scores, counted_as, score

IMPROVEMENT = "Improvement, challenger minus champion"
UNJUDGED_INCREASE = "Unjudged, challenger minus champion"
SIMILARITY = "Cosine similarity to the references, challenger minus champion"
PREFERENCE = "Preferred answers, challenger minus champion"
PERPLEXITY = "Perplexity on general text, challenger to champion"
JUDGE_ERRORS = "The judge's errors on champion and challenger"


class GateTest(BaseModel):
    """What one test of the gate found.

    Attributes:
        passed: a test of a bound fails where no record was judged that could show it.
        description: one sentence with the numbers: bound, limit and n.
        measured: the number that was held against the limit; ``None`` where none was, and in decisions of before it was
            kept, as are ``bound``, ``relation`` and ``limit``.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    passed: bool
    description: str
    measured: float | None = None
    bound: Bound | None = None
    relation: Relation | None = None
    limit: float | None = None


class Reading(BaseModel):
    """What the verdicts say: as judged, where what is unjudged is left out, or in the worst case.

    In the worst case, whatever the judge could not judge speaks for the champion: its own answers pass, and the
    challenger's are declined in scope, answered out of it, and never preferred.

    Attributes:
        comparison: champion and challenger question by question.
        preference: by how much a judge that is an LLM prefers the challenger's answers in scope; ``None`` of any other.
        alpha: two-sided level of the test of the improvement: an equal challenger passes it in half as many cases.
    """

    model_config = ConfigDict(frozen=True)
    champion: Scores
    challenger: Scores
    comparison: Comparison
    preference: Rate | None
    alpha: float = 0.05

    @property
    def improvement(self) -> Rate:
        """The difference, with the interval at ``1 - alpha`` that the test reads."""
        return self.comparison.rate_at(self.alpha)


class Numbers(Reading):
    """What the gate's tests read; the reading it has itself is the one as judged.

    Attributes:
        worst: the reading in the worst case; ``None`` where nothing is unjudged, so that it is the same, and in
            decisions of before it was kept.
        unjudged: challenger against champion, where a win is a question on which only the challenger is unjudged;
            ``None`` in decisions of before it was kept.
        quality: by how much the cosine similarity of answers in scope to their references has grown; of no question
            where there is no reference.
        perplexity: challenger's to champion's, on one text and so without an interval; ``None`` in decisions of before
            it was kept.
        judge_errors: whether the judge errs on both models alike, as far as a person has labelled their answers;
            ``None`` in decisions of before that was asked.
    """

    worst: Reading | None = None
    unjudged: Comparison | None = None
    quality: Rate
    perplexity: Rate | None = None
    judge_errors: JudgeErrors | None = None


class Decision(Numbers):
    """What the gate decided and on what.

    Attributes:
        passed: whether every test passed.
        detectable: the least true improvement that this gate finds in four cases of five, with its n, its alpha and the
            observed share of discordant pairs; ``None`` where it finds none, and in decisions of before it was kept.
        sealed: both models on the sealed questions; ``None`` where they were not opened.
        alone: what the verdicts say of the models without the guard, which decides nothing; ``None`` where no guard is
            enforced, as it is the same then.
        card: of the judge, without its groups and bins; ``None`` in decisions of before it was kept.
        lineage: when, by which code and on what; ``None`` in decisions of before it was kept.
        report: the page.
    """

    passed: bool
    tests: list[GateTest]
    limits: GateLimits
    detectable: float | None = None
    sealed: Comparison | None = None
    alone: Reading | None = None
    card: JudgeCard | None = None
    lineage: Lineage | None = None
    report: Path

    @property
    def evidently(self) -> Path:
        """Evidently's report on the same numbers, beside the page."""
        return self.report.with_name(f"{self.report.stem}-evidently.html")


class Evaluated(BaseModel):
    """One of the gate's two models: its judged answers, and how good those in scope are."""

    model_config = ConfigDict(frozen=True)
    evaluation: Evaluation
    quality: Quality


def check_judge(card: JudgeCard, policy: Policy) -> None:
    """Let the judge's verdicts decide on a promotion only where its card is fresh and good enough.

    Raises:
        UserError: the policy has changed since the card was measured, or a lower bound is under the policy's bar.
        ValueError: the card is of the judge as it judges traffic, and not as it judges in the gate.
    """
    if not card.scope_given:
        raise ValueError("a judge gates by its card as it is told the scope")
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
    judge_errors: JudgeErrors | None = None,
) -> Decision:
    """Hold the challenger against the champion and the policy's limits, on both models' answers to the same questions.

    Args:
        champion, challenger: on the same questions in the same order.
        winners: as ``preference.winners_in_pairs`` gives them; empty where the judge is not an LLM.
        card: of the judge that gave these verdicts.
        report: where the page on this decision is to be; it is not written here.
        alpha: two-sided level of this gate's test of the improvement.
        judge_errors: on these answers.

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
    if [record.request for record in before.records] != [record.request for record in after.records]:
        raise ValueError("champion and challenger did not answer the same questions in the same order")
    judged = _reading(before.verdicts, after.verdicts, winners=winners, alpha=alpha)
    numbers = Numbers(
        **dict(judged),
        worst=_worst_reading(before, after, winners=winners, alpha=alpha),
        unjudged=compare_unjudged(before.verdicts, after.verdicts),
        quality=difference(champion.quality, challenger.quality),
        perplexity=perplexity_ratio(champion.quality, challenger.quality),
        judge_errors=judge_errors,
    )
    tests = [found for test in _TESTS if (found := test(numbers, policy.gate))]
    return Decision(
        **dict(numbers),
        passed=all(test.passed for test in tests),
        tests=tests,
        limits=policy.gate,
        detectable=_detectable(judged, policy.gate),
        alone=_alone(before, after, alpha=alpha),
        card=card.model_copy(update={"groups": (), "languages": (), "calibration": (), "usage": None}),
        report=report,
    )


def _reading(
    champion: Sequence[Verdict], challenger: Sequence[Verdict], *, winners: Sequence[str], alpha: float
) -> Reading:
    return Reading(
        champion=score(champion),
        challenger=score(challenger),
        comparison=compare(champion, challenger),
        preference=preferred(winners) if winners else None,
        alpha=alpha,
    )


def _alone(champion: Evaluation, challenger: Evaluation, *, alpha: float) -> Reading | None:
    if champion.alone is None or challenger.alone is None:
        return None
    return _reading(champion.alone.verdicts, challenger.alone.verdicts, winners=[], alpha=alpha)


def _worst_reading(
    champion: Evaluation, challenger: Evaluation, *, winners: Sequence[str], alpha: float
) -> Reading | None:
    outcomes = {verdict.outcome for verdict in (*champion.verdicts, *challenger.verdicts)}
    if "unjudged" not in outcomes and "unjudged" not in winners:
        return None
    inside = [record.in_scope for record in challenger.records]
    return _reading(
        counted_as("pass", champion.verdicts, in_scope=inside),
        counted_as("fail", challenger.verdicts, in_scope=inside),
        winners=["b" if winner == "unjudged" else winner for winner in winners],
        alpha=alpha,
    )


def _detectable(judged: Reading, limits: GateLimits) -> float | None:
    # Of scipy, which who only reads decisions need not wait for.
    from ontopic.statistics.sample_size import detectable_difference

    found = judged.comparison
    if not found.n:
        return None
    return detectable_difference(found.n, found.discordant, limit=limits.improvement, alpha=judged.alpha)


def _guardrail_score(of: Reading, limits: GateLimits) -> GateTest:
    share = of.challenger.guardrail_score
    return held_test("Guardrail score", share, bound="low", relation="at least", limit=limits.guardrail_score)


def _improvement(of: Reading, limits: GateLimits) -> GateTest:
    held, note, limit = of.improvement, of.comparison.note, limits.improvement
    return held_test(IMPROVEMENT, held, bound="low", relation="above", limit=limit, note=note, alpha=of.alpha)


def _over_refusal(of: Reading, limits: GateLimits) -> GateTest:
    share = of.challenger.over_refusal
    return held_test("Over-refusal", share, bound="high", relation="at most", limit=limits.over_refusal)


def _leak(of: Reading, limits: GateLimits) -> GateTest:
    return held_test("Leak", of.challenger.leak, bound="high", relation="at most", limit=limits.leak)


def _preference(of: Reading, limits: GateLimits) -> GateTest | None:
    if of.preference is None:
        return None
    return held_test(PREFERENCE, of.preference, bound="low", relation="above", limit=-limits.preference_loss)


def _unjudged(of: Numbers, limits: GateLimits) -> GateTest:
    share = of.challenger.unjudged_share
    return held_test("Unjudged", share, bound="high", relation="at most", limit=limits.unjudged)


def _unjudged_increase(of: Numbers, limits: GateLimits) -> GateTest | None:
    if of.unjudged is None:
        return None
    limit = limits.unjudged_increase
    return held_test(UNJUDGED_INCREASE, of.unjudged.rate, bound="high", relation="at most", limit=limit, note=" pairs")


def _quality(of: Numbers, limits: GateLimits) -> GateTest | None:
    if not of.quality.n:
        return None
    return held_test(SIMILARITY, of.quality, bound="low", relation="above", limit=-limits.quality_loss)


def _perplexity(of: Numbers, limits: GateLimits) -> GateTest | None:
    if of.perplexity is None:
        return None
    return held_test(PERPLEXITY, of.perplexity, bound="value", relation="at most", limit=limits.perplexity_ratio)


def _judge_errors(of: Numbers, limits: GateLimits) -> GateTest | None:
    if of.judge_errors is None:
        return None
    passed, why = of.judge_errors.verdict(limits.improvement)
    return GateTest(name=JUDGE_ERRORS, passed=passed, description=f"{JUDGE_ERRORS}: {why}")


def _worst(test: Callable[[Reading, GateLimits], GateTest | None]) -> Callable[[Numbers, GateLimits], GateTest | None]:
    """The same test in the worst case; nothing to test where nothing is unjudged."""

    def in_the_worst_case(of: Numbers, limits: GateLimits) -> GateTest | None:
        found = test(of.worst, limits) if of.worst else None
        worst = {name: f"Worst case, {getattr(found, name)}" for name in ("name", "description")} if found else {}
        return found and found.model_copy(update=worst)

    return in_the_worst_case


_TESTS: tuple[Callable[[Numbers, GateLimits], GateTest | None], ...] = (
    _guardrail_score,
    _improvement,
    _over_refusal,
    _leak,
    _unjudged,
    _unjudged_increase,
    _worst(_guardrail_score),
    _worst(_improvement),
    _worst(_over_refusal),
    _worst(_leak),
    _quality,
    _preference,
    _worst(_preference),
    _perplexity,
    _judge_errors,
)


def held_test(
    title: str,
    rate: Rate,
    *,
    bound: Bound,
    relation: Relation,
    limit: float,
    note: str = "",
    alpha: float = 0.05,
) -> GateTest:
    """What holding a rate against a limit found; the arguments are those of ``limits.hold``."""
    held = hold(title, rate, bound=bound, relation=relation, limit=limit, note=note, alpha=alpha)
    return of_held(title, held)


def of_held(title: str, held: Held) -> GateTest:
    """A test of what was held against a limit."""
    against = held.model_dump(include={"name", "passed", "measured", "bound", "relation", "limit"})
    return GateTest(description=f"{title}: {held.description}", **against)
