"""Each kind of page, of made-up answers with whatever texts, by the function of the project that writes it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from evaluations import gate_card
from qualities import quality_of

from ontopic.config.policy import Policy
from ontopic.data.labelled import LabelledRecord, Question
from ontopic.evaluation.answers import Evaluation
from ontopic.evaluation.gate import Evaluated, decide
from ontopic.evaluation.gate_page import TEMPLATE, gate_context
from ontopic.evaluation.lineage import Lineage
from ontopic.judges.cards.calibration import Measured
from ontopic.judges.cards.card import JudgeCard, Usage, judge_card
from ontopic.judges.cards.comparison_page import comparison_report
from ontopic.judges.cards.page import card_report
from ontopic.judges.guard.card import CurvePoint, Errors, GuardCard, StageCard
from ontopic.judges.guard.page import guard_report
from ontopic.monitoring.chart import carried, levels_of, outcomes_of
from ontopic.monitoring.side_score import SideScore
from ontopic.monitoring.standing import Standing, WindowLimits
from ontopic.monitoring.thumbs import Thumbs
from ontopic.monitoring.traffic_page import traffic_report
from ontopic.monitoring.window import Counts, Drift, Window, window_result
from ontopic.monitoring.window_page import window_report
from ontopic.records import Judged, Message, Record, Verdict
from ontopic.reports.design import write_page
from ontopic.statistics.rates import Rate, rate

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
_LIMITS = WindowLimits(threshold=0.9, least_records=1, most_unjudged=0.5)
Text = Callable[[int], str]
"""The i-th text of a page, from 0."""


def plain(i: int) -> str:
    """An ordinary text of an ordinary length, found by its mark."""
    said = "To freeze a lost card, open the app, choose the card and tap Freeze; a new one arrives in five days."
    return f"mark{i} {said}"


class _Texts:
    """Texts, one after the other."""

    def __init__(self, text: Text) -> None:
        self._text, self._used = text, 0

    def __call__(self) -> str:
        self._used += 1
        return self._text(self._used - 1)


def judged(n: int, failing: int, texts: Text, *, model: str, judge_id: str) -> Judged:
    """Answers to ``n`` questions, in scope and out of it by turns; the first ones fail, the last is unjudged."""
    text = _Texts(texts)
    records, verdicts = [], []
    for i in range(n):
        question, earlier = text(), i % 5 == 4
        said = [Message(role="system", content="Be kind."), Message(role="user", content="Hello?")]
        said += [Message(role="assistant", content="Hello."), Message(role="user", content=question)]
        outcome = "unjudged" if i == n - 1 else "pass" if i >= failing else "fail"
        in_scope = i % 2 == 0
        record = Record(
            question=question,
            answer=f"{model[:20]} {text()}" if outcome == "fail" else text(),
            in_scope=in_scope,
            id=f"{i}",
            model_version=model,
            asked_at=NOON + timedelta(minutes=i),
            latency_s=0.1 * (i % 9),
            messages=tuple(said) if earlier else (),
            conversation=f"chat {i // 2} {text() if i < 4 else ''}",
            user=text() if i < 4 else "",
        )
        records.append(record)
        verdicts.append(
            Verdict(
                outcome=outcome,
                score=None if outcome == "unjudged" else 0.9 if outcome == "pass" else 0.1,
                explanation=text(),
                judge_id=judge_id,
                in_scope=None if outcome == "unjudged" else in_scope,
                declined=None if outcome == "unjudged" else in_scope != (outcome == "pass"),
                cause=text() if outcome == "unjudged" else None,
            )
        )
    return Judged(records=records, verdicts=verdicts)


def gate_sides(policy: Policy, texts: Text, *, name: str, n: int) -> tuple[Evaluated, Evaluated]:
    """Champion and challenger on ``n`` questions, of which most are won and a few lost."""
    sides = []
    for model, failing in ((f"1 {name}", n * 3 // 5), (f"2 {name}", n // 20)):
        of = judged(n, failing, texts, model=model, judge_id=f"judge {name}")
        if model.startswith("2"):  # loses some
            verdicts = [
                v.model_copy(update={"outcome": "fail", "score": 0.1}) if i >= n * 9 // 10 and v.score else v
                for i, v in enumerate(of.verdicts)
            ]
            of = Judged(records=of.records, verdicts=verdicts)
        questions = [
            Question(
                question=record.question[:20_000],
                in_scope=bool(record.in_scope),
                kind=f"kind {i % 3} {name}",
                intent=f"intent {i % 4} {name}",
                reference=texts(i),
            )
            for i, record in enumerate(of.records)
        ]
        evaluation = Evaluation(questions=questions, records=of.records, verdicts=of.verdicts)
        sides.append(Evaluated(evaluation=evaluation, quality=quality_of()))
    champion, challenger = sides
    return champion, challenger


def gate_page(policy: Policy, out: Path, *, texts: Text, name: str, n: int) -> None:
    """The page on such a gate, as ``write_gate_page`` draws it."""
    card = gate_card(policy).model_copy(update={"judge_id": f"judge {name}"})
    champion, challenger = gate_sides(policy, texts, name=name, n=n)
    decision = decide(champion, challenger, winners=[], policy=policy, card=card, report=out)
    texts_of = {field: name for field, of in Lineage.model_fields.items() if of.annotation is str}
    lineage = Lineage.model_validate(texts_of | {"at": NOON, "seed": 7, "look": 2, "attempt": 1})
    decision = decision.model_copy(update={"lineage": lineage})
    # without Evidently's report beside it, which takes seconds
    write_page(f"Gate {name}", TEMPLATE, out=out, **gate_context(decision, champion, challenger=challenger))


def measured(n: int, wrong: int, texts: Text, *, judge_id: str) -> Measured:
    """A judge on ``n`` labelled records, of which it gets the first ones wrong and leaves the last unjudged."""
    text = _Texts(texts)
    records, verdicts = [], []
    for i in range(n):
        label = "pass" if i % 2 else "fail"
        said = label if i >= wrong else "fail" if label == "pass" else "pass"
        fields = {"question": text()[:20_000], "answer": text()[:20_000], "label": label, "kind": text()[:200]}
        fields |= {"intent": f"{i % 5} {text()[:200]}", "why": text(), "reference": text()}
        records.append(LabelledRecord.model_validate(fields))
        fields = {"outcome": said, "score": 0.9 if said == "pass" else 0.2, "explanation": text()}
        if i == n - 1:
            fields = {"outcome": "unjudged", "score": None, "explanation": "", "cause": text()}
        verdicts.append(Verdict.model_validate(fields | {"judge_id": judge_id}))
    card = judge_card(judge_id, records, verdicts=verdicts)
    usage = Usage(records=n, seconds=8.5, usd=0.12, prompt_tokens=200_000, completion_tokens=20_000)
    more = {"usage": usage, "measured_at": NOON}
    return Measured(card=card.model_copy(update=more), records=records, verdicts=verdicts)


def card_page(policy: Policy, out: Path, *, texts: Text, name: str, n: int) -> None:
    """The page of a judge's card."""
    card_report(measured(n, n // 6, texts, judge_id=f"judge {name}"), policy, source=f"labels {name}", out=out)


def compared_page(policy: Policy, out: Path, *, texts: Text, name: str, n: int) -> None:
    """The page that compares two judges."""
    judges = [measured(n, n // part, texts, judge_id=f"judge {part} {name}") for part in (9, 5)]
    said, pages = [f"the first is better {name}"], {judges[0].card.judge_id: out.with_name(f"{name[:9]}.html")}
    comparison_report(judges, said, policy=policy, source=f"labels {name}", out=out, pages=pages)


def guard_card(name: str) -> GuardCard:
    """A guard's card."""
    points = [
        CurvePoint(over_refusal=rate(i // 2, 200), leak=rate(200 - 3 * i, 200), threshold=i / 100) for i in range(51)
    ]
    errors = Errors(over_refusal=rate(4, 200), leak=rate(70, 200))
    stage = StageCard(curve=points, chosen=0.3, held_out=errors)
    return GuardCard(
        judge_id=f"judge {name}",
        refusals={"refusal": f"No. {name}"},
        budget=0.04,
        question=stage,
        answer=stage,
        both=errors,
        labels_sha256="0" * 64,
        criteria_sha256="1" * 64,
        measured_at=NOON,
    )


def guard_page(policy: Policy, out: Path, *, texts: Text, name: str, n: int) -> None:
    """The page of a guard's card."""
    guard_report(guard_card(name), policy, out=out)


def closed_window(policy: Policy, traffic: Judged, *, name: str, number: int = 0) -> Window:
    """A window of this traffic, closed, with all that a result can have."""
    card = JudgeCard(
        judge_id=f"judge {name}",
        accuracy=rate(180, 200),
        kappa=rate(160, 200),
        sensitivity=rate(90, 100),
        specificity=rate(90, 100),
        unjudged=0,
    )
    side = SideScore(
        name=f"side {name}", judge_id=f"m {name}", score=rate(5, 9), sampled=10, unjudged=1, cause=name, card=name
    )
    levels = levels_of(0.9, None, least_records=1)
    result = window_result(
        traffic,
        card,
        limits=_LIMITS,
        counts=Counts(n=len(traffic.records), late=1, too_late=2),
        chart=carried(None, outcomes_of(traffic), since=NOON, levels=levels),
        drift=Drift(
            score=0.001,
            detected=True,
            grown=[(f"topic {name}", 0.1, 0.4)],
            distance=0.4,
            level=0.01,
            n=90,
            reference=90,
        ),
        revision=2,
    )
    thumbs = Thumbs(liked=rate(7, 9), since=rate(70, 90), least=0.5)
    more = {"beside": [side], "thumbs": thumbs, "unknown_because": f"of {name}", "report": f"window-{number}.html"}
    at = NOON + number * timedelta(hours=1)
    return Window(
        id=number,
        model_version=f"1 {name}",
        start=at,
        end=at + timedelta(hours=1),
        state="final",
        closed_at=at,
        result=result.model_copy(update=more),
    )


def window_page(policy: Policy, out: Path, *, texts: Text, name: str, n: int) -> None:
    """The page on a closed window."""
    traffic = judged(n, n // 3, texts, model=f"1 {name}", judge_id=f"judge {name}")
    *earlier, window = (closed_window(policy, traffic, name=name, number=i) for i in range(6))
    assert window.result is not None
    window_report(policy, window, result=window.result, judged=traffic, earlier=earlier[::-1], out=out)


def traffic_page(policy: Policy, out: Path, *, texts: Text, name: str, n: int) -> None:
    """The page on a stretch of traffic and its windows."""
    traffic = judged(n, n // 3, texts, model=f"1 {name}", judge_id=f"judge {name}")
    windows = [closed_window(policy, traffic, name=name, number=i) for i in range(6)]
    known = Standing(score=Rate(value=0.5, low=0.4, high=0.6, n=9), is_corrected=False, labels=7, unknown_because=name)
    beside = windows[0].result.beside if windows[0].result else []
    traffic_report(f"Traffic {name}", traffic, of=known, windows=windows, limits=_LIMITS, out=out, beside=beside)


PAGES = {
    "gate": gate_page,
    "judge card": card_page,
    "judges compared": compared_page,
    "guard card": guard_page,
    "window": window_page,
    "traffic": traffic_page,
}
"""Writers of each kind of page. ``texts`` are of records, verdicts and labels, ``name`` stands in every name, and ``n``
is the number of records."""
