"""The part of the gate's page on the judge: its card, what people's labels say of it, and what is not known."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from ontopic.data.labelled import SCOPE_BY_JUDGE
from ontopic.evaluation.answers import Evaluation
from ontopic.evaluation.gate import Decision
from ontopic.judges.cards.card import SHARES
from ontopic.reports.parts import Cell, Link, Table
from ontopic.reports.shown import first_upper
from ontopic.statistics.pairs import compare

_ORIGINS = {
    "templates": "written answers to labelled questions, and not answers of these two models",
    "traffic": "answers drawn at random from traffic",
    "discordant": "answers on which champion and challenger differ",
}


class JudgePart(BaseModel):
    """What the page says of the judge.

    Attributes:
        facts: its card, name and value.
        unknown: what is not known of it, a sentence each.
        errors: people's labels of these answers; ``None`` while they are too few to count.
    """

    model_config = ConfigDict(frozen=True)
    facts: list[tuple[str, Cell]]
    unknown: list[str]
    errors: Table | None = None


def judge_part(decision: Decision, champion: Evaluation, *, challenger: Evaluation) -> JudgePart:
    """The judge that gave these verdicts."""
    judges = sorted({verdict.judge_id for verdict in (*champion.verdicts, *challenger.verdicts)})
    facts: list[tuple[str, Cell]] = [("Judge", _linked(decision, ", ".join(judges) or "unknown"))]
    unknown = ["It judges whether an answer keeps to the subject. Whether what the answer says is true is not judged."]
    if (card := decision.card) is not None:
        facts += [(name.capitalize(), getattr(card, name)) for name in SHARES]
        at = f", at {card.measured_at:%Y-%m-%d %H:%M} UTC" if card.measured_at else ""
        told = "told" if card.scope_given else "not told"
        facts.append(("Measured on", f"{card.n:,} labelled records{at}: {_ORIGINS[card.origin]}; {told} the scope"))
        if card.unjudged:
            unknown.append(f"{card.unjudged:,} of the records of its card it could not judge; they count in no share.")
    else:
        unknown.append("This decision was made by a release that kept no card of the judge with it.")
    if decision.judge_errors is not None:
        unknown.append(first_upper(decision.judge_errors.verdict(decision.limits.improvement)[1]))
    else:
        unknown.append("Whether it errs on both models alike was not asked.")
    unknown += _scope_by_judge(champion, challenger)
    return JudgePart(facts=facts, unknown=unknown, errors=_errors(decision))


def _linked(decision: Decision, judge: str) -> Cell:
    """Its id, leading to the page of its card beside this one."""
    card, lineage = decision.card, decision.lineage
    if card is None or lineage is None or card.judge_id != judge:
        return judge
    from ontopic.judges.cards.page import card_page

    page = card_page(card.judge_id, lineage.registered_model, reports=decision.report.parent, scope_given=True)
    return Link(text=judge, href=page.name)


def _errors(decision: Decision) -> Table | None:
    found = decision.judge_errors.found if decision.judge_errors else None
    if found is None:
        return None
    rows: list[list[Cell]] = [
        [name, str(getattr(found.champion, name)), str(getattr(found.challenger, name)), f"{p:.2g}"]
        for name, p in (("sensitivity", found.p_sensitivity), ("specificity", found.p_specificity))
    ]
    columns = ["Share", "Champion", "Challenger", "p that they are the same"]
    return Table.model_validate({"caption": "The judge against people's labels", "columns": columns, "rows": rows})


def _scope_by_judge(champion: Evaluation, challenger: Evaluation) -> list[str]:
    """On questions whose scope only the judge has said, and the improvement without them."""
    labelled = [i for i, question in enumerate(champion.questions) if question.kind != SCOPE_BY_JUDGE]
    others = len(champion.questions) - len(labelled)
    if not others:
        return []
    without = compare([champion.verdicts[i] for i in labelled], [challenger.verdicts[i] for i in labelled])
    return [
        f"{others:,} of the {len(champion.questions):,} questions come from traffic. Whether they are in scope is the "
        "judge's own opinion and no label, so on them the judge agrees with itself. Without them the improvement is "
        f"{without.with_interval} (n = {without.n:,})."
    ]
