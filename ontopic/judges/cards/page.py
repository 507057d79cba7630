"""The page of a judge's card: whether it is good enough, what it got wrong, and what is not known about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ontopic.config.policy import Policy
from ontopic.data.labelled import LabelledRecord
from ontopic.judges.cards.bar import bar_tests, may_gate, use_in_words
from ontopic.judges.cards.calibration import Measured
from ontopic.judges.cards.card import SHARES, Group, JudgeCard
from ontopic.judges.cards.unknowns import unknowns
from ontopic.records import Verdict, turns
from ontopic.reports.measurement import Folded, Measurement, write_measurement
from ontopic.reports.page_name import page_name
from ontopic.reports.parts import Answer, Answered, Badge, Cell, Column, Headline, Link, Status, Table, TestRow, Turn
from ontopic.reports.plots import Bar, Bars, Chart, Forest, ForestRow, Mark, Point, Series, Share, Tick
from ontopic.statistics.correction import youden_low

_OUTCOMES = ("pass", "fail", "unjudged")
_MOST_GROUPS = 50


def card_page(judge_id: str, registered_model: str, *, reports: Path, scope_given: bool = False) -> Path:
    """Where the page of a judge's card on a policy's labels is, in the folder of the reports."""
    told = ["told-the-scope"] if scope_given else []
    return reports / page_name("judge-card", registered_model, *judge_id.rsplit("-", 1), *told)


def comparison_page(registered_model: str, reports: Path) -> Path:
    """Where the page that compares a policy's judges is."""
    return reports / page_name("judges-compared", registered_model)


def card_report(measured: Measured, policy: Policy, *, source: str, out: Path) -> None:
    """Write the page of a judge's card.

    Args:
        policy: whose labels these are, and whose bar the judge is held against.
        source: what the labelled records are, in words.
        out: the HTML file; written whole or not at all, its folder is made.
    """
    card = measured.card
    found = Measurement(
        kind=f"card of a judge of {policy.name}, {card.instrument.replace('told', 'told the scope', 1)}",
        headline=_headline(card, policy),
        sentences=[_use(card)],
        plots=[_shares_plot(card, policy), *_calibration_plot(card)],
        tests=_tests(card, policy),
        unknown=unknowns(card, policy),
        counts=_confusion_plot(measured),
        shown=_wrong(measured),
        tables=_tables(card, measured),
        facts=_facts(card, policy, source=source),
    )
    write_measurement(f"Judge card: {card.judge_id} (scope {card.instrument})", found, out=out)


def _headline(card: JudgeCard, policy: Policy) -> Headline:
    good = may_gate(card, policy.judge_bar) if card.scope_given else card.accuracy.n > 0 and youden_low(card) > 0
    reason = f"Judge {card.judge_id} gave {card.accuracy.n:,} labelled records a verdict; {card.accuracy} of them as "
    return Headline(
        status="passed" if good else "failed",
        label="Good enough" if good else "Not good enough",
        sentence=use_in_words(card, policy.judge_bar),
        reason=f"{reason}labelled." if card.accuracy.n else "",
    )


def _use(card: JudgeCard) -> str:
    if card.scope_given:
        return (
            "It was told of each question whether it is in scope, as in the gate: this card decides whether its "
            "verdicts may promote a model."
        )
    return "It was not told whether a question is in scope, as on traffic: windows go by this card."


def _tests(card: JudgeCard, policy: Policy) -> list[TestRow]:
    if not card.scope_given:
        return []
    return [
        TestRow(
            name=f"{test.name.capitalize()} (judge_bar of the policy)",
            passed=test.passed,
            sentence=f"The judge's {test.name} is {test.share}; its lower bound must reach {test.bar:g}.",
            measured=test.share.low if test.share.n else None,
            bound="low",
            relation="at least",
            limit=test.bar,
        )
        for test in bar_tests(card, policy.judge_bar)
    ]


def _shares_plot(card: JudgeCard, policy: Policy) -> Forest:
    bars = {"accuracy": policy.judge_bar.accuracy, "kappa": policy.judge_bar.kappa} if card.scope_given else {}
    passed: dict[str, bool] = (
        {test.name: test.passed for test in bar_tests(card, policy.judge_bar)} if card.scope_given else {}
    )
    names = {
        "accuracy": "Accuracy: right verdicts",
        "kappa": "Kappa: agreement beyond chance",
        "sensitivity": "Sensitivity: good answers that it passes",
        "specificity": "Specificity: bad answers that it fails",
    }
    rows = []
    for share in SHARES:
        limit = bars.get(share)
        met: Status | None = None if limit is None else "passed" if passed.get(share) else "failed"
        rows.append(
            ForestRow(
                label=names[share],
                marks=[Mark(name=card.judge_id, rate=getattr(card, share), role="challenger")],
                limit=limit,
                limit_text="" if limit is None else f"at least {limit:g}",
                status=met,
            )
        )
    if card.agreement:
        rows.append(ForestRow(label="Agreement of the panel (alpha)", marks=[Mark(name="panel", rate=card.agreement)]))
    return Forest(title="How good it is", note="with 95 % intervals", rows=rows, axis="value")


def _calibration_plot(card: JudgeCard) -> list[Chart]:
    """What a score is worth; none where the judge gave no score."""
    if not card.calibration:
        return []
    points = [
        Point(
            x=each.mean_score,
            y=each.passing.value,
            low=each.passing.low,
            high=each.passing.high,
            hint=f"mean score {each.mean_score:.3f}: {each.passing} labelled pass",
        )
        for each in card.calibration
    ]
    ideal = [Point(x=0.0, y=0.0), Point(x=1.0, y=1.0)]
    return [
        Chart(
            title="Calibration curve: what a score is worth",
            note="share labelled pass with 95 % intervals, by tenths of the score; on the line a score is right",
            series=[
                Series(name="a score that is right", points=ideal, dots=False),
                Series(name="this judge", points=points, role="challenger"),
            ],
            ticks=[Tick(x=each, label=f"{each:g}") for each in (0.0, 0.5, 1.0)],
            x_axis="mean score: the judge's probability of a pass",
        )
    ]


def _confusion(measured: Measured) -> dict[str, dict[str, int]]:
    """How many records of each label got which verdict."""
    pairs = [(r.label, v.outcome) for r, v in zip(measured.records, measured.verdicts, strict=True)]
    return {
        label: {said: sum(pair == (label, said) for pair in pairs) for said in _OUTCOMES} for label in ("pass", "fail")
    }


def _confusion_plot(measured: Measured) -> Bars:
    bars = []
    for label, said in _confusion(measured).items():
        wrong = "fail" if label == "pass" else "pass"
        bars.append(
            Bar(
                label=f"Labelled {label}",
                shares=[
                    Share(name="right", n=said[label], role="passed"),
                    Share(name="wrong", n=said[wrong], role="failed"),
                    Share(name="unjudged", n=said["unjudged"]),
                ],
            )
        )
    return Bars(title="What became of the records of each label", bars=bars)


def _tables(card: JudgeCard, measured: Measured) -> list[Table]:
    tables = [
        _confusion_table(measured),
        _groups("language of the question", card.languages),
        _groups("intent or kind", card.groups),
    ]
    if card.causes:
        tables.append(
            Table(
                caption="Causes of unjudged records",
                columns=[Column(name="Cause", wide=True), Column(name="Records", numeric=True)],
                rows=[[cause, n] for cause, n in card.causes.items()],
            )
        )
    return tables


def _confusion_table(measured: Measured) -> Table:
    rows: list[list[Cell]] = []
    for label, said in _confusion(measured).items():
        n = sum(said.values()) or 1
        rows.append([label, *(f"{said[outcome]:,} ({said[outcome] / n:.1%})" for outcome in _OUTCOMES)])
    return Table(
        caption="Confusion matrix",
        note="with shares of each label",
        columns=[
            Column(name="Labelled"),
            *(Column(name=name, numeric=True) for name in ("Judged pass", "Judged fail", "Unjudged")),
        ],
        rows=rows,
    )


def _groups(what: str, groups: Sequence[Group]) -> Table:
    """The groups with an error or an unjudged record."""
    numbers = ("Records", "Right", "Pass judged fail", "Fail judged pass", "Unjudged")
    wrong: list[list[Cell]] = [
        [g.name, g.n, g.right, g.false_fails, g.false_passes, g.unjudged] for g in groups if g.right < g.n
    ]
    right, n = len(groups) - len(wrong), sum(group.n for group in groups if group.right == group.n)
    none = f"; {right:,} more, of {n:,} records together, have no error" if right else ""
    return Table.first(
        wrong,
        _MOST_GROUPS,
        lies="the card in the state folder, under judges/, has them all.",
        caption=f"Errors by {what}",
        note=f"the worst first{none}.",
        columns=[Column(name=what.capitalize()), *(Column(name=name, numeric=True) for name in numbers)],
        nothing="There is no error." if groups else "There are no records.",
        filtered=len(wrong) > 15,
    )


def _wrong(measured: Measured) -> list[Folded]:
    """The records that it got wrong, by what it should have said, the surest first."""
    wrong = [
        (record, said)
        for record, said in zip(measured.records, measured.verdicts, strict=True)
        if record.label and said.outcome not in (record.label, "unjudged")
    ]
    wrong.sort(key=lambda pair: -_sureness(pair[1]))
    kinds = {
        "pass": "good answers that it failed, the surest first",
        "fail": "bad answers that it passed, the surest first",
    }
    lies = "the verdicts lie beside the card in the state folder, under judges/."
    shown = {label: [_answered(*pair) for pair in wrong if pair[0].label == label] for label in kinds}
    return [Folded.first(shown[label], what, lies=lies) for label, what in kinds.items() if shown[label]]


def _answered(record: LabelledRecord, said: Verdict) -> Answered:
    score = "" if said.score is None else f", probability of a pass {said.score:.3f}"
    request = turns(record.record().request)
    return Answered(
        question=record.question,
        about=f"{record.intent or record.kind or 'kind not named'}{score}",
        answers=[
            Answer(
                name="The answer, labelled",
                text=record.answer,
                role="passed" if record.label == "pass" else "failed",
                verdict=_badge(str(record.label)),
                why=record.why,
            ),
            Answer(name="The judge said", text=said.explanation, role="neutral", verdict=_badge(said.outcome)),
        ],
        turns=[Turn(speaker=speaker, text=text) for speaker, text in request] if len(request) > 1 else [],
    )


def _badge(outcome: str) -> Badge:
    return Badge(status="passed" if outcome == "pass" else "failed", text=outcome)


def _sureness(verdict: Verdict) -> float:
    return 0.0 if verdict.score is None else abs(verdict.score - 0.5)


def _facts(card: JudgeCard, policy: Policy, *, source: str) -> list[tuple[str, Cell]]:
    tokens, brier, error = None, None, None
    if card.usage:
        tokens = f"{card.usage.prompt_tokens:,.0f} of prompts, {card.usage.completion_tokens:,.0f} of answers"
    if not math.isnan(card.brier):
        brier = f"{card.brier:.3f}, the mean squared error of the score; 0 is best"
        error = f"{card.calibration_error:.3f}, expected, over ten bins; 0 is best"
    return [
        ("Judge", card.judge_id),
        ("Measured on", f"{card.n:,} labelled records of {source}; {card.unjudged:,} of them it could not judge"),
        ("Measured at", f"{card.measured_at:%Y-%m-%d %H:%M:%S} UTC" if card.measured_at else None),
        ("Per 1,000 records", cost_in_words(card)),
        ("Tokens per 1,000", tokens),
        ("Brier score", brier),
        ("Calibration error", error),
        ("Policy", f"{policy.name}, sha256 {policy.sha256}"),
        ("Criteria", f"sha256 {card.criteria_sha256 or 'unknown'}: what of the policy a judge goes by"),
        ("Labels", f"sha256 {card.labels_sha256 or 'unknown'}"),
        *_others(card, policy.registered_model),
    ]


def _others(card: JudgeCard, registered_model: str) -> list[tuple[str, Cell]]:
    """Links to the pages beside it."""
    compared = comparison_page(registered_model, Path()).name
    links: list[tuple[str, Cell]] = [("Beside others", Link(text="the judges of this policy, compared", href=compared))]
    if card.scope_given:
        on_traffic = card_page(card.judge_id, registered_model, reports=Path()).name
        links.append(("On traffic", Link(text="its card where it is not told the scope", href=on_traffic)))
    return links


def cost_in_words(card: JudgeCard) -> str:
    """Seconds and dollars per 1,000 records."""
    if card.usage is None:
        return "not measured"
    price = "price not known" if card.usage.usd is None else f"${card.usage.usd:.4g}"
    return f"{card.usage.seconds:.3g} s, {price}"
