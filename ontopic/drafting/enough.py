"""Which commands a policy's labelled data is too thin for, and why: each number is that of the code which needs it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from ontopic.config.policy import Policy
from ontopic.config.settings import LocalJudgeSettings, Settings
from ontopic.data.labelled import LabelledRecord, Question, load_questions, load_records
from ontopic.data.rows import source_sha256
from ontopic.data.sample import Sample, in_and_out, sampled_questions
from ontopic.data.sealed import open_and_sealed, sealed_in_words
from ontopic.errors import UserError
from ontopic.evaluation.gate_size import too_few
from ontopic.evaluation.rehearsal import rehearsal_in_words, rehearsal_sample
from ontopic.judges.cards.calibration import calibration_records
from ontopic.judges.cards.traffic_card import LEAST_LABELS
from ontopic.judges.local.examples import in_english, labelled_examples, too_few_examples
from ontopic.statistics.agreement import kappa
from ontopic.statistics.rates import Z95, rate
from ontopic.statistics.sample_size import detectable_difference

_USUAL_DISCORDANT = 0.5  # share of the questions on which an untrained model and one that learned the policy differ


class Need(BaseModel):
    """What one use of the data needs.

    Attributes:
        use: what it is for, by the command where it is one.
        lacking: a sentence for each thing that is too thin; empty where there is enough.
        has: what there is, in words.
    """

    model_config = ConfigDict(frozen=True)
    use: str
    has: str
    lacking: list[str]

    def __str__(self) -> str:
        if not self.lacking:
            return f"{self.use}: enough ({self.has})"
        return "\n".join([f"{self.use}: too thin ({self.has})", *(f"  {sentence}" for sentence in self.lacking)])


def needs(policy: Policy, settings: Settings, *, labels: int = 0) -> list[Need]:
    """What each use needs, in the order of the loop.

    Args:
        labels: how many records of the traffic, drawn at random, carry a person's label.

    Raises what ``load_rows`` raises.
    """
    questions = load_questions(policy.questions, languages=policy.languages)
    found = [_calibrate(policy, questions, is_local=isinstance(settings.judge, LocalJudgeSettings))]
    found.append(_monitor(policy, settings, questions=questions))
    if settings.serving.backend == "weights":
        found += [_train(questions), _gate(policy, settings), _later_gates(policy, questions)]
    score = [] if labels >= LEAST_LABELS else [_score(labels)]
    return [*found, Need(use="the corrected guardrail score (label)", has=f"{labels} labels of traffic", lacking=score)]


def _of(questions: Sequence[Question], *splits: str) -> list[Question]:
    return [question for question in questions if question.split in splits]


def _counted(questions: Sequence[Question]) -> str:
    return "{} questions in scope, {} out of it".format(*in_and_out(questions))


def _calibrate(policy: Policy, questions: Sequence[Question], *, is_local: bool) -> Need:
    """Whether a judge can be learned, and whether its card could reach the bar if it made no mistake."""
    lacking: list[str] = []
    if is_local:
        taught = _of(questions, "train", "judge")
        records = load_records(policy.records, split="train", questions=policy.questions)
        lacking += too_few_examples(policy, in_english(labelled_examples(policy, taught, records=records)))
    try:
        measured = calibration_records(policy, "calibration")
    except UserError as error:
        return Need(use="calibrate", has="0 labelled records of the calibration split", lacking=[*lacking, str(error)])
    known = [record for record in measured if record.in_scope is not None]
    under, has = _under_bar(policy, known), f"{len(measured)} labelled records of the calibration split"
    if not under:
        has += f"; the judge may err on {_most_errors(len(known), policy.judge_bar.accuracy)} of them (judge_bar)"
    return Need(use="calibrate", has=has, lacking=[*lacking, *under])


def _most_errors(n: int, bar: float) -> int:
    """On how many of ``n`` records a judge may err whose accuracy has a lower bound of ``bar``."""
    return max(errors for errors in range(n + 1) if rate(n - errors, n).low >= bar)


def _passing(records: Sequence[LabelledRecord]) -> int:
    return sum(record.label == "pass" for record in records)


def _under_bar(policy: Policy, records: Sequence[LabelledRecord]) -> list[str]:
    """Sentences on the bars that not even a judge without a mistake could reach on so many records."""
    n, passing, bar = len(records), _passing(records), policy.judge_bar
    lacking = []
    # Without a mistake the Wilson interval begins at n / (n + z^2).
    least = Z95**2 * bar.accuracy / (1 - bar.accuracy) if bar.accuracy < 1 else math.inf
    if n < least:
        wanted = f"{math.ceil(least)}" if least < math.inf else "more than any number of"
        lacking.append(
            f"a judge without a mistake needs {wanted} labelled records whose scope is known, and there are {n}, for "
            f"the lower bound of its accuracy to reach {bar.accuracy:g} (judge_bar); so nothing can be promoted"
        )
    low = kappa([passing, 0, 0, n - passing]).low if 0 < passing < n else -1.0
    if low < bar.kappa:
        lacking.append(
            f"on {passing} records labelled pass and {n - passing} labelled fail the lower bound of kappa of a judge "
            f"without a mistake is {low:.2f}, and must reach {bar.kappa:g} (judge_bar); so nothing can be promoted"
        )
    return lacking


def _monitor(policy: Policy, settings: Settings, *, questions: Sequence[Question]) -> Need:
    taught, least = _of(questions, "train"), policy.least_records
    if settings.serving.backend != "weights":
        return Need(use="monitoring (watch)", has="the traffic of users", lacking=[])
    inside, outside = in_and_out(taught)
    share, wanted = settings.traffic.in_scope_share, settings.traffic.questions
    asked = min(inside, round(wanted * share)) + min(outside, round(wanted * (1 - share)))
    lacking = []
    if not inside or not outside:
        lacking.append("the loop asks questions of the split train, and needs at least 1 in scope and 1 out of it")
    elif asked < least:
        lacking.append(
            f"the loop can ask {asked} questions, and with fewer than {least} judged records (least_records) nothing "
            "is detected; so nothing is trained"
        )
    return Need(use="monitoring (the loop)", has=f"{_counted(taught)} of the split train", lacking=lacking)


def _train(questions: Sequence[Question]) -> Need:
    taught = _of(questions, "train", "judge")
    written = sum(bool(question.in_scope and question.reference) for question in taught)
    lacking = []
    if not written:
        lacking.append(
            "no question in scope has a reference, so the model learns from its own answers alone, where the judge "
            "passes one"
        )
    return Need(use="training", has=f"{written} questions in scope with a reference", lacking=lacking)


def _gate(policy: Policy, settings: Settings) -> Need:
    n = settings.evaluation.questions
    sample = Sample(
        source=policy.questions,
        source_sha256=source_sha256(policy.questions),
        split="evaluation",
        n=n,
        languages=policy.languages,
    )
    try:
        asked = sampled_questions(sample)
    except UserError as error:
        return Need(use="the gate", has="0 questions", lacking=[str(error)])
    inside, outside = in_and_out(asked)
    lacking = too_few(policy.gate, in_scope=inside, out_of_scope=outside)
    if lacking:
        lacking.append("so no challenger can pass, however good it is")
    found = detectable_difference(len(asked), _USUAL_DISCORDANT, limit=policy.gate.improvement)
    if found is None:
        lacking.append(
            f"on {len(asked)} questions, where the models differ on half of them, the gate sees no improvement with a "
            "chance of 80 %"
        )
    if not any(question.in_scope and question.reference for question in asked):
        lacking.append("no question in scope has a reference, so whether answers get worse is not tested")
    seen = "" if found is None else f"; it sees an improvement of {found:.2f} in four cases of five"
    return Need(use="the gate", has=f"{_counted(asked)}{seen}", lacking=lacking)


def _later_gates(policy: Policy, questions: Sequence[Question]) -> Need:
    """What gates after the first rest on besides; without it they are weaker, and none is kept from promoting."""
    held_out = _of(questions, "evaluation")
    lacking = []
    if rehearsal_sample(policy.questions, policy.languages) is None:
        lacking.append(rehearsal_in_words(policy.questions, policy.languages))
    if not open_and_sealed(held_out)[1]:
        lacking.append(sealed_in_words(policy.questions))
    has = f"{len(_of(questions, 'calibration'))} questions of calibration, {len(held_out)} of evaluation"
    return Need(use="rehearsal and sealed questions (later gates)", has=has, lacking=lacking)


def _score(labels: int) -> str:
    return (
        f"how the judge errs on real traffic is unknown until {LEAST_LABELS} records of it, drawn at random, carry a "
        f"label, so the score stays uncorrected; label {LEAST_LABELS - labels} more once there is traffic: "
        "python run.py label"
    )
