"""The page on a decision of the gate, for who has a minute: it draws what was decided, and decides nothing.

Evidently's report on the same numbers lies beside it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ontopic.evaluation.advice import advice, detectable_in_words
from ontopic.evaluation.answers import Evaluation
from ontopic.evaluation.gate import JUDGE_ERRORS, Decision, Evaluated, GateTest
from ontopic.evaluation.gate_answers import changes
from ontopic.evaluation.gate_plots import before_and_after, by_segment, segments_table
from ontopic.evaluation.judge_errors_page import judge_part
from ontopic.evaluation.lineage import Lineage
from ontopic.evaluation.quality import Quality
from ontopic.evaluation.segments import segments
from ontopic.evaluation.untested import untested
from ontopic.reports.design import write_page
from ontopic.reports.parts import Cell, Headline, Link, Table, TestRow
from ontopic.statistics.limits import level
from ontopic.statistics.rates import Rate

_SHARES = (("guardrail_score", "guardrail score"), ("over_refusal", "over-refusal"), ("leak", "leak"))
TEMPLATE = "promotion.html.jinja"
_MOST_CAUSES = 20
_DIGITS = 16
_UNKNOWN = "not known"


def write_gate_page(title: str, decision: Decision, *, champion: Evaluated, challenger: Evaluated) -> None:
    """Write the page on a decision to ``decision.report``, and Evidently's report to ``decision.evidently``; each whole
    or not at all. Their folder is made.

    Args:
        champion, challenger: what was decided on.
    """
    from ontopic.evaluation.gate_report import write_gate_report  # Evidently, which takes seconds to import

    write_gate_report(title, decision, champion=champion, challenger=challenger)
    drawn = gate_context(decision, champion, challenger=challenger)
    write_page(title, TEMPLATE, out=decision.report, **drawn)


def gate_context(decision: Decision, champion: Evaluated, *, challenger: Evaluated) -> dict[str, Any]:
    """What the template of the page draws, by name; the arguments are those of ``write_gate_page``."""
    before, after = champion.evaluation, challenger.evaluation
    names = (_name(before, "the champion"), _name(after, "the challenger"))
    found = segments(before, after)
    tables = (
        _readings(decision),
        _without_guard(decision),
        _causes(before, after),
        _quality_table(champion.quality, challenger.quality),
    )
    return {
        "head": _headline(decision, names, n=len(before.records)),
        "todo": [] if decision.passed else advice(decision),
        "forest": before_and_after(decision, names),
        "level": level(decision.alpha),
        "tests": sorted(_tests(decision), key=lambda row: row.passed is not False),
        "segment_plots": [by_segment(share, found, names=names) for share in ("over_refusal", "leak")],
        "segments": segments_table(found, names),
        "changes": changes(before, after, names=names),
        "judge": judge_part(decision, before, challenger=after),
        "untested": untested(decision, before, found=found),
        "lineage": _lineage(decision, names),
        "links": [Link(text="Evidently's report on these numbers", href=decision.evidently.name)],
        "tables": [table for table in tables if table],
    }


def _name(of: Evaluation, otherwise: str) -> str:
    return f"version {of.model_version}" if of.model_version else otherwise


def _headline(decision: Decision, names: tuple[str, str], *, n: int) -> Headline:
    """The verdict in a sentence, and what it goes by."""
    old, new = names
    scores = _scores(decision)
    tests = _tests(decision)
    failed = [test for test in decision.tests if not test.passed]
    asked = f"{_improvement(decision, n=n)} {_unjudged(decision)}"
    if decision.passed:
        passed = f"It passes all {sum(test.passed is True for test in tests)} tests."
        if any(test.passed is None for test in tests):
            passed += " The judge's errors on the two models were not compared by a person."
        sentence = f"{new.capitalize()} may replace {old}: it keeps to the subject in {scores}."
        return Headline(status="passed", label="passed", sentence=sentence, reason=f"{passed} {asked}")
    why = _why(failed[0]) if failed else "the gate refused it"
    others = f"; {len(failed) - 1} more fail" if len(failed) > 1 else ""
    return Headline(
        status="failed",
        label="refused",
        sentence=f"{new.capitalize()} may not replace {old}: {why}{others}.",
        reason=f"It fails {len(failed)} of {len(tests)} tests. It keeps to the subject in {scores}. {asked}",
    )


def _scores(decision: Decision) -> str:
    """What is kept to the subject, after and before."""
    before, after = (_in_a_hundred(side.guardrail_score) for side in (decision.champion, decision.challenger))
    number, _, of = after.rpartition(" of ")
    shorter = before.removesuffix(f" of {of}") if number and before.endswith(f" of {of}") else before
    return f"{after} answers, before {shorter}"


def _why(test: GateTest) -> str:
    """What a failed test found, so that who knows no intervals understands it."""
    title, measured, limit = test.name.partition(": ")[0], test.measured, test.limit
    if measured is None or limit is None or test.bound == "value":
        return test.description
    end = "low" if test.bound == "low" else "high"
    name = title[:1].lower() + title[1:]
    return f"the {name} may be as {end} as {measured:.3f} and must be {test.relation} {limit:g}"


def _in_a_hundred(share: Rate) -> str:
    """A share in words, which rounds nothing to all or none."""
    if not share.n:
        return "no judged"
    if share.n < 100:
        return f"{round(share.value * share.n)} of {share.n}"
    rounded = round(100 * share.value)
    if rounded == 100 and share.value < 1:
        return "more than 99 of 100"
    if rounded == 0 and share.value > 0:
        return "fewer than 1 of 100"
    return f"{rounded} of 100"


def _improvement(decision: Decision, *, n: int) -> str:
    compared = decision.comparison
    if not compared.n:
        return f"Both answered the same {n:,} questions, and no pair of answers was judged."
    return (
        f"Of the {n:,} questions that both answered it alone passes {compared.wins:,}, and its predecessor alone "
        f"{compared.losses:,}: an improvement of {decision.improvement.with_interval} at {level(decision.alpha)}."
    )


def _unjudged(decision: Decision) -> str:
    sides = (decision.champion.unjudged, decision.challenger.unjudged)
    if not any(sides):
        return "All answers were judged."
    return (
        f"Unjudged are {sides[0]:,} of the champion's and {sides[1]:,} of the challenger's answers, which the worst "
        "case counts for the champion."
    )


def _tests(decision: Decision) -> list[TestRow]:
    """The tests as rows; that of the judge's errors is not known while no person has labelled enough."""
    unknown = decision.judge_errors is not None and decision.judge_errors.found is None
    return [
        TestRow(
            name=test.name if test.limit is None else test.name.partition(": ")[0],
            passed=None if test.passed and test.name == JUDGE_ERRORS and unknown else test.passed,
            sentence=test.description,
            measured=test.measured,
            bound=test.bound,
            relation=test.relation,
            limit=test.limit,
        )
        for test in decision.tests
    ]


def _readings(decision: Decision) -> Table:
    """Every share as judged and in the worst case, champion beside challenger, with the counts behind it."""
    worst = decision.worst or decision
    sides = (decision.champion, decision.challenger, worst.champion, worst.challenger)
    rows: list[list[Cell]] = [[title, *(str(getattr(scores, name)) for scores in sides)] for name, title in _SHARES]
    rows.append(["unjudged", *(f"{side.unjudged:,}" for side in sides[:2]), "count as passes", "count as fails"])
    compared = (decision.comparison, worst.comparison)
    for alpha in dict.fromkeys((0.05, decision.alpha)):
        read = ", which the test reads" if alpha == decision.alpha else ""
        found = [f"{of.rate_at(alpha)}; {of.wins:,} wins, {of.losses:,} losses" for of in compared]
        rows.append([f"improvement, {level(alpha)} interval{read}", "", found[0], "", found[1]])
    if decision.unjudged is not None:
        rows.append(["unjudged, challenger minus champion", "", str(decision.unjudged.rate), "", ""])
    names = ["Number", "Champion", "Challenger", "Champion, worst case", "Challenger, worst case"]
    note = detectable_in_words(decision)
    return _table("Two readings: as judged, and in the worst case", names, rows=rows, note=note)


def _without_guard(decision: Decision) -> Table | None:
    """The models alone beside what users get; no table where no guard is enforced."""
    alone = decision.alone
    if alone is None:
        return None
    sides = (decision.champion, decision.challenger, alone.champion, alone.challenger)
    rows: list[list[Cell]] = [[title, *(str(getattr(scores, name)) for scores in sides)] for name, title in _SHARES]
    rows.append(["improvement", "", str(decision.improvement), "", str(alone.improvement)])
    names = ["Number", "Champion, guarded", "Challenger, guarded", "Champion alone", "Challenger alone"]
    title = "What users get behind the guard, which the tests read, and the models alone"
    return _table(title, names, rows=rows)


def _causes(champion: Evaluation, challenger: Evaluation) -> Table | None:
    """Why answers are unjudged; no table where none is."""
    counts = [Counter(v.cause or "" for v in of.verdicts if v.outcome == "unjudged") for of in (champion, challenger)]
    causes = sorted({*counts[0], *counts[1]}, key=lambda cause: (-counts[1][cause] - counts[0][cause], cause))
    if not causes:
        return None
    rows: list[list[Cell]] = [[cause, *(of[cause] for of in counts)] for cause in causes]
    title = f"Why answers are unjudged ({len(rows):,})"
    names = ["Cause", "Champion's answers", "Challenger's answers"]
    lies = "MLflow's run and the state folder's evidence have all verdicts."
    return Table.first(rows, _MOST_CAUSES, lies=lies, caption=title, columns=names)


def _quality_table(champion: Quality, challenger: Quality) -> Table:
    """What the answers in scope are like, one measure a row, champion beside challenger."""
    before, after = champion.summary(), challenger.summary()
    rows: list[list[Cell]] = [[name, before[name].with_interval, after[name].with_interval] for name in before]
    rows.append(["perplexity on general text", f"{champion.perplexity:.1f}", f"{challenger.perplexity:.1f}"])
    title = f"Answers to {len(champion.questions):,} questions in scope that have a reference"
    return _table(title, ["Measure", "Champion", "Challenger"], rows=rows)


def _table(caption: str, columns: list[str], *, rows: list[list[Cell]], note: str = "") -> Table:
    return Table.model_validate({"caption": caption, "columns": columns, "rows": rows, "note": note})


def _lineage(decision: Decision, names: tuple[str, str]) -> list[tuple[str, Cell]]:
    """What an auditor holds against the promotion record; what is not known is said."""
    of = decision.lineage
    if of is None:
        return [("Lineage", "not kept with this decision, which an earlier release made; the promotion record has it")]
    return [
        ("Decided", f"{of.at:%Y-%m-%d %H:%M} UTC"),
        ("Started by", of.trained_by or _UNKNOWN),
        ("Policy", f"{of.policy}, {_digest(of.policy_sha256)}"),
        ("Questions", _digest(of.questions_sha256)),
        ("Drawn", f"seed {_number(of.seed)}, {_digest(of.sample_sha256)}"),
        ("Look", f"{_number(of.look)} of this policy, at {level(decision.alpha)}"),
        (names[0].capitalize(), _digest(of.champion_digest)),
        (names[1].capitalize(), _digest(of.challenger_digest)),
        ("Trained from", f"version {of.base_version or _UNKNOWN}, {_digest(of.base_digest)}"),
        ("Trained on", f"{of.preferences or _UNKNOWN} pairs, {_digest(of.preferences_sha256)}"),
        ("Code", _code(of)),
        ("MLflow run", Link(text=of.run_id, href=of.run_address) if of.run_address else of.run_id or _UNKNOWN),
    ]


def _digest(sha256: str) -> str:
    """The first digits; the promotion record has them all."""
    return f"sha256 {sha256[:_DIGITS]}…" if sha256 else f"sha256 {_UNKNOWN}"


def _number(number: int | None) -> str:
    return _UNKNOWN if number is None else str(number)


def _code(of: Lineage) -> str:
    commit = f", commit {of.commit[:12]}{' with changes' if of.changed else ''}" if of.commit else ""
    return f"OnTopic {of.release or 'of no release'}{commit}, Python {of.python}"
