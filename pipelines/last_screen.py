"""What the loop says at its end: the verdict, before and after, answers of both models, what to open, the time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ontopic.evaluation.discordant import GatePairs, Pair
from ontopic.evaluation.gate import Decision, GateTest
from ontopic.statistics.scores import Scores
from ontopic.visible import visible
from pipelines.loop import LoopResult

_LONGEST = 160  # characters of a question or an answer
_SLOWEST = 3  # stages that are named
_SHARES = (("guardrail_score", "guardrail score"), ("over_refusal", "over-refusal"), ("leak", "leak"))
_WORDS = (
    "guardrail score: the share of the judged answers that pass; over-refusal: declined, though in scope; leak: "
    "answered, though out of scope. Whether an answer is true is not judged."
)

Outcome = Literal["no gate", "healthy", "waiting", "refused", "ended", "promoted"]


class LoopReport(BaseModel):
    """What one turn of the loop came to: ``--json``.

    Attributes:
        outcome: ``no gate`` where the judge may not decide; ``healthy`` where no window is detected; ``waiting`` where
            a challenger does, or is rolled out; ``ended`` where one passed and is not promoted all the same.
        in_words: the same as a sentence.
        champion: at the start; ``challenger``: the last that was trained, else empty.
        before, after: scores of the traffic of the champion at the start and of the one that was promoted.
        gate: the last gate's decision.
        reports: the pages.
        seconds: of each stage; ``None`` for one taken from the cache.
    """

    model_config = ConfigDict(frozen=True)
    outcome: Outcome
    in_words: str
    champion: str
    challenger: str
    before: Scores | None
    after: Scores | None
    gate: Decision | None
    reports: list[str]
    seconds: list[tuple[str, float | None]]

    @classmethod
    def of(cls, result: LoopResult) -> LoopReport:
        """What a result comes to."""
        outcome = _outcome(result)
        return cls(
            outcome=outcome,
            in_words=_verdict(outcome, result),
            champion=result.champion,
            challenger=result.challenger,
            before=result.before.scores if result.before else None,
            after=result.after.scores if result.after else None,
            gate=result.decision,
            reports=[str(each.report) for each in (result.decision, result.after, result.before) if each],
            seconds=result.stages,
        )


def last_screen(
    result: LoopResult, champion: Sequence[str], *, pairs: GatePairs | None = None, earlier: Sequence[Path] = ()
) -> Group:
    """The verdict, before and after, answers of both models, what to open next, and the time.

    Args:
        champion: who is the champion now and why, as a line or two.
        pairs: the answers of the gate.
        earlier: pages of earlier runs that are still worth a look.
    """
    report = LoopReport.of(result)
    parts: list[RenderableType] = [Text(f"\n{visible(report.in_words)}", style="bold")]
    if report.outcome in ("no gate", "healthy"):
        parts += map(Text, champion)
    parts += [Text(f"Waits: {wait}", style="bold") for wait in result.waiting]
    parts += [Text(), _before_and_after(result), Text(_WORDS)]
    if (newest := result.after or result.before) and not newest.is_corrected:
        parts.append(Text(f"The guardrail score of the traffic is {newest.in_words}"))
    if result.decision:
        parts += [Text("\nThe gate's tests:", style="bold"), _tests(result.decision.tests)]
    if report.outcome == "refused" and result.decision:
        from ontopic.evaluation.advice import advice

        parts.append(Text("\nWhat to do:", style="bold"))
        parts += [Padding(Text(sentence), (0, 0, 0, 2)) for sentence in advice(result.decision)]
    if pairs is not None and result.decision:
        parts += _answers(pairs)
    parts.append(Text("\nOpen next:", style="bold"))
    parts += [Text(f"  {number}. {page}") for number, page in enumerate([*report.reports, *map(str, earlier)], start=1)]
    parts += [Text("  All pages: python run.py ui"), Text(f"\n{_time(report.seconds)}")]
    return Group(*parts)


def gate_pages(reports: Path, registered_model: str, *, champion: str) -> list[Path]:
    """The pages of the gate that let this version pass, without Evidently's, to which each of them links."""
    found = reports.glob(f"gate-{registered_model}-version-{champion}-against-*.html")
    return sorted(page for page in found if not page.stem.endswith("-evidently"))


def _outcome(result: LoopResult) -> Outcome:
    if result.no_gate:
        return "no gate"
    if result.waiting and (result.decision is None or result.decision.passed):
        return "waiting"
    if result.decision is None:
        return "healthy"
    if not result.decision.passed:
        return "refused"
    return "ended" if result.ended else "promoted"


def _verdict(outcome: Outcome, result: LoopResult) -> str:
    new, old = f"version {result.challenger}", f"version {result.champion}"
    if outcome == "no gate":
        return (
            f"Nothing was trained or promoted: {result.no_gate}. What the judge says of this traffic is a hint. What "
            "the data is enough for: python run.py policy check; label what was answered: python run.py label"
        )
    if outcome == "healthy":
        return f"No window of {old} is detected: nothing to improve."
    if result.decision is None:
        return "Nothing was trained while a challenger waits or is rolled out."
    said = _passing(result.decision, old)
    if outcome == "refused":
        failed = sum(not test.passed for test in result.decision.tests)
        tests = f"{failed} of {len(result.decision.tests)} tests failed" if failed != 1 else "one test failed"
        return f"{new.capitalize()} stays a challenger, and {old} the champion: {tests}. {said}"
    if outcome == "waiting":
        return f"{new.capitalize()} passed the gate and is not the champion yet. {said}"
    if outcome == "ended":
        return f"{new.capitalize()} passed the gate and stays a challenger: {result.ended}. {said}"
    return f"{new.capitalize()} is the champion now. {said}"


def _passing(decision: Decision, old: str) -> str:
    scores = decision.challenger
    asked = scores.guardrail_score.n + scores.unjudged
    shares = [f"{of.guardrail_score.value:.0%}" for of in (scores, decision.champion) if of.guardrail_score.n]
    if len(shares) < 2:
        return f"Too few of the gate's {asked:,} questions could be judged."
    return f"Of the gate's {asked:,} questions it answers {shares[0]} as the policy asks, {old} {shares[1]}."


def _before_and_after(result: LoopResult) -> Table:
    columns: list[tuple[str, Scores]] = []
    if result.before:
        columns.append((f"traffic\nversion {result.champion}", result.before.scores))
    if result.decision:
        columns.append((f"gate\nversion {result.champion}", result.decision.champion))
        columns.append((f"gate\nversion {result.challenger}", result.decision.challenger))
    if result.after:
        columns.append((f"new traffic\nversion {result.challenger}", result.after.scores))
    title = "Before and after" if len(columns) > 1 else "What monitoring found"
    table = Table(title=f"{title} (value and 95 % interval)", padding=0)  # whole in 80 columns
    table.add_column("", no_wrap=True)
    for title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for name, label in _SHARES:
        shares = [getattr(scores, name) for _, scores in columns]
        table.add_row(
            label, *[share.with_interval.replace(" [", "\n[") if share.n else "no records" for share in shares]
        )
    table.add_row("judged", *[str(scores.guardrail_score.n) for _, scores in columns])
    table.add_row("unjudged", *[str(scores.unjudged) for _, scores in columns])
    return table


def _tests(tests: Sequence[GateTest]) -> Table:
    """A line a test; those that failed are first, with their numbers."""
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(ratio=2)
    table.add_column(ratio=3)
    for test in sorted(tests, key=lambda test: test.passed):
        title, _, said = test.description.partition(": ")
        if test.passed:  # its page and the record have the rest
            said = said.partition(" (value")[0].partition(". ")[0].partition(";")[0]
        mark = Text("passed", style="green") if test.passed else Text("FAILED", style="red")
        table.add_row(Text("  ") + mark, Text(title), Text(said))
    return table


def _answers(pairs: GatePairs) -> Iterator[RenderableType]:
    """A question that was won in scope, one out of it, and one that was lost: the first of each in random order."""
    kinds = (
        ("won, in scope", True, (False, True)),
        ("won, out of scope", False, (False, True)),
        ("lost", None, (True, False)),
    )
    found = [(title, pair) for title, scope, passes in kinds if (pair := _first(pairs, scope=scope, passes=passes))]
    if not found:
        return
    won = sum(pair.passes == (False, True) for pair in pairs.discordant)
    lost = len(pairs.discordant) - won
    heading = f"\nAnswers to the same questions ({won:,} won, {lost:,} lost; these are drawn at random):"
    yield Text(heading, style="bold")
    for title, pair in found:
        table = Table(box=box.SIMPLE, show_header=False, padding=(0, 1, 0, 0), show_edge=False)
        table.add_column(no_wrap=True, style="dim")
        table.add_column(overflow="fold")
        table.add_row(title, Text(_short(pair.question), style="italic"))
        table.add_row(f"version {pairs.champion}", _short(pair.champion))
        table.add_row(f"version {pairs.challenger}", _short(pair.challenger))
        yield Padding(table, (0, 0, 0, 2))


def _first(pairs: GatePairs, *, scope: bool | None, passes: tuple[bool, bool]) -> Pair | None:
    of_kind = (pair for pair in pairs.discordant if pair.passes == passes and scope in (None, pair.in_scope))
    return next(of_kind, None)


def _short(text: str) -> str:
    line = visible(" ".join(text.split()))
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


def _time(stages: Sequence[tuple[str, float | None]]) -> str:
    """All stages in a line: the slowest by name."""
    ran = sorted(((seconds, name) for name, seconds in stages if seconds is not None), reverse=True)
    slowest = ", ".join(f"{name} {seconds:.0f} s" for seconds, name in ran[:_SLOWEST])
    said = f"It took {sum(seconds for seconds, _ in ran):.0f} s" + (f", most of it: {slowest}" if slowest else "")
    reused = len(stages) - len(ran)
    return said + (
        f". {reused} of {len(stages)} stages had not changed and were reused from ZenML's cache." if reused else "."
    )
