"""The page of a guard's card: what it errs, and the curve of each stage."""

from __future__ import annotations

from pathlib import Path

from ontopic.config.policy import Policy
from ontopic.judges.guard.card import Errors, GuardCard, StageCard, guard_card
from ontopic.reports.measurement import Measurement, write_measurement
from ontopic.reports.page_name import page_name
from ontopic.reports.parts import Cell, Column, Headline, Table, TestRow
from ontopic.reports.plots import Chart, Forest, ForestRow, Mark, Point, Series, Tick
from ontopic.state.workspace import Workspace

STAGES = {"question": "before generation: the question's scope", "answer": "after generation: the answer"}
_DRAWN = 10  # thresholds of a stage in its table


def guard_page(registered_model: str, reports: Path) -> Path:
    """Where the page of a policy's guard is, in the folder of the reports."""
    return reports / page_name("guard-card", registered_model)


def drawn_guard_card(policy: Policy, workspace: Workspace, *, budget: float) -> tuple[GuardCard, Path]:
    """The card of a policy's guard, as ``guard_card`` has it, and its page, drawn anew.

    Raises:
        UserError: labelled data is missing or malformed.
    """
    card = guard_card(policy, workspace=workspace, budget=budget)
    page = guard_page(policy.registered_model, workspace.reports)
    guard_report(card, policy, out=page)
    return card, page


def guard_report(card: GuardCard, policy: Policy, *, out: Path) -> None:
    """Write the page of a guard's card, whole or not at all; its folder is made."""
    within = card.both.over_refusal.value <= card.budget if card.both.over_refusal.n else None
    found = Measurement(
        kind=f"card of the guard of {policy.name}",
        headline=Headline(
            status="neutral" if within is None else "passed" if within else "failed",
            label="Not known" if within is None else "Within its budget" if within else "Over its budget",
            sentence=_sentence(card),
            reason=(
                "Of labelled answers, by both stages together, by cross-fitting: on each half of the calibration split "
                "with the thresholds that the other half gave."
            ),
        ),
        plots=[_errors_plot(card), *_curve(card.question, "question"), *_curve(card.answer, "answer")],
        tests=_tests(card),
        unknown=_unknown(card),
        tables=[_thresholds(getattr(card, name), words) for name, words in STAGES.items()],
        facts=_facts(card, policy),
    )
    write_measurement(f"Guard card: {card.judge_id}", found, out=out)


def _sentence(card: GuardCard) -> str:
    both = card.both
    if not both.over_refusal.n or not both.leak.n:
        return "Too little is labelled to say what the guard stops."
    return (
        f"The guard stops {1 - both.leak.value:.1%} of what must not go out, and {both.over_refusal.value:.1%} of what "
        f"should; {card.budget:.1%} of that may be stopped."
    )


def _named(card: GuardCard) -> dict[str, Errors]:
    return {
        "Before generation": card.question.held_out,
        "After generation": card.answer.held_out,
        "Both, on the answers": card.both,
    }


def _errors_plot(card: GuardCard) -> Forest:
    return Forest(
        title="Errors of the guard alone, on records that did not choose its thresholds",
        note="95 % intervals",
        rows=[
            ForestRow(
                label=name,
                marks=[
                    Mark(name="over-refusal: stopped, and should pass", rate=errors.over_refusal, role="challenger"),
                    Mark(name="leak: passed, and should be stopped", rate=errors.leak, role="failed"),
                ],
            )
            for name, errors in _named(card).items()
        ],
        axis="share of the records",
    )


def _curve(stage: StageCard, name: str) -> list[Chart]:
    """Over-refusal against leak, a point a threshold, with the chosen one; none where too little is labelled."""
    known = sorted(
        (point for point in stage.curve if point.over_refusal.n and point.leak.n),
        key=lambda point: (point.over_refusal.value, -point.leak.value),
    )
    if not known:
        return []
    most = max(point.over_refusal.value for point in known) or 1.0
    chosen = stage.at_chosen
    end = Point(
        x=chosen.over_refusal.value,
        y=chosen.leak.value,
        low=chosen.leak.low,
        high=chosen.leak.high,
        hint=f"threshold {chosen.threshold:g}: {chosen}",
    )
    curve = [
        Point(x=each.over_refusal.value, y=each.leak.value, hint=f"threshold {each.threshold:g}: {each}")
        for each in known
    ]
    return [
        Chart(
            title=f"By threshold, {STAGES[name]}",
            note=f"leak by over-refusal on the calibration split, n = {chosen.leak.n:,} and {chosen.over_refusal.n:,}",
            series=[
                Series(name="by threshold", points=curve, dots=False),
                Series(name=f"chosen: {stage.chosen:g}", points=[end], role="challenger"),
            ],
            ticks=[Tick(x=share * most, label=f"{share * most:.1%}") for share in (0.0, 0.5, 1.0)],
            x_axis="over-refusal",
        )
    ]


def _tests(card: GuardCard) -> list[TestRow]:
    """Each stage's over-refusal against its half of the budget, and both together against all of it."""
    rows = []
    budgets = [card.budget / 2, card.budget / 2, card.budget]
    for (name, errors), budget in zip(_named(card).items(), budgets, strict=True):
        share = errors.over_refusal
        rows.append(
            TestRow(
                name=f"{name}: over-refusal within its budget",
                passed=share.value <= budget if share.n else None,
                sentence=f"{share}, by cross-fitting; the budget is {budget:.2%} (of serving.guard_budget "
                f"{card.budget:g}). The value is held against it and not a bound: the budget chooses thresholds, and "
                "gates nothing.",
                measured=share.value if share.n else None,
                bound="value",
                relation="at most",
                limit=budget,
            )
        )
    return rows


def _unknown(card: GuardCard) -> list[str]:
    found = [
        "What it does to real traffic: these are the policy's labelled questions and answers. Served with the guard on "
        "observe, it notes what it would have stopped.",
        "Whether an answer is true: the guard goes by the subject, as its judge does.",
    ]
    if (n := card.both.leak.n) < 100:
        found.append(
            f"Small differences of the leak: only {n:,} labelled answers are of the kind that must be stopped."
        )
    return found


def _thresholds(stage: StageCard, words: str) -> Table:
    """Some of the thresholds, the chosen one among them."""
    step = max(1, len(stage.curve) // _DRAWN)
    points = [point for i, point in enumerate(stage.curve) if i % step == 0 or point.threshold == stage.chosen]
    return Table(
        caption=f"Thresholds, {words}",
        note="on the whole calibration split",
        columns=[
            Column(name="Threshold", numeric=True),
            Column(name="Chosen"),
            Column(name="Over-refusal", numeric=True),
            Column(name="Leak", numeric=True),
        ],
        rows=[
            [
                f"{point.threshold:g}",
                "chosen" if point.threshold == stage.chosen else "",
                point.over_refusal,
                point.leak,
            ]
            for point in points
        ],
    )


def _facts(card: GuardCard, policy: Policy) -> list[tuple[str, Cell]]:
    thresholds = (
        f"stops questions with a score under {card.question.chosen:g} and answers under {card.answer.chosen:g}, the "
        f"highest at which at most {card.budget / 2:.2%} of what should pass is stopped at each stage"
    )
    return [
        ("Judge", card.judge_id),
        ("Thresholds", thresholds),
        ("Says instead", card.refusals.refusal),
        *((f"In {name}", text) for name, text in card.refusals.refusals.items()),
        ("Measured at", f"{card.measured_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("Policy", f"{policy.name}, sha256 {policy.sha256}"),
        ("Criteria", f"sha256 {card.criteria_sha256}: what of the policy a judge goes by"),
        ("Labels", f"sha256 {card.labels_sha256}"),
    ]
