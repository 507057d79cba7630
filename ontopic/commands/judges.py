"""``judge`` and ``calibrate``: verdicts on files, and judges held against labels."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ontopic.commands.options import Project, SkipBad, beginning, beside, check_one_output, console, judge_of
from ontopic.commands.reporting import AsJson, reporting
from ontopic.errors import UserError
from ontopic.state.whole_file import check_writable, lasting_output

if TYPE_CHECKING:
    from ontopic.judges.cards.card import JudgeCard
    from ontopic.judges.cards.comparison import JudgesCompared
    from ontopic.judges.guard.card import GuardCard
    from ontopic.statistics.rates import Rate


@beginning
def judge(
    project: Project,
    *,
    records: Annotated[
        Path | None,
        typer.Option(
            help="Records: `question`, `answer`, optionally `messages` and `label`. With `--engine ray` a folder too; "
            "without it, the stored traffic."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="JSONL file to write; a folder of Parquet files with `--engine ray`.")],
    grading: Annotated[
        Literal["rubric", "pairwise", "reference"],
        typer.Option(
            help="rubric: by the judge; pairwise: against `benchmark_answer`; reference: against `reference`."
        ),
    ] = "rubric",
    engine: Annotated[
        Literal["here", "ray"], typer.Option(help="here: in this process; ray: in workers, on one machine or many.")
    ] = "here",
    ray_address: Annotated[
        str, typer.Option(envvar="RAY_ADDRESS", help="Of a running Ray cluster; one is started here by default.")
    ] = "",
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Judge records; print the judge's card where they carry labels. A call that was stopped is taken up again."""
    if engine == "ray":
        if grading != "rubric":
            raise UserError(f"--engine ray judges by the rubric alone; leave it out for {grading} grading")
        if find_spec("ray") is None:
            raise UserError("the engine ray is not installed; run pip install -c constraints.txt -e '.[ray]'")
        from ontopic.commands.judge_by_partition import judge_by_partition

        return judge_by_partition(
            project, records=records, out=out, address=ray_address, skip_bad=skip_bad, as_json=as_json
        )
    if records is None:
        raise UserError("--records is missing; give a file, or --engine ray for the stored traffic")
    return _judge_here(project, records, out=out, grading=grading, skip_bad=skip_bad, as_json=as_json)


def _judge_here(
    project: Project,
    records: Path,
    *,
    out: Path,
    grading: Literal["rubric", "pairwise", "reference"],
    skip_bad: bool,
    as_json: bool,
) -> None:
    """Judge a file in this process."""
    from ontopic.data.labelled import LabelledRecord
    from ontopic.data.rows import stream_rows

    rows = stream_rows(records, LabelledRecord, skip_bad=skip_bad)
    check_one_output(out, as_json=as_json)
    check_writable(out)
    from ontopic.commands import judge_reports
    from ontopic.judges import judged_file
    from ontopic.judges.judge import agreement_of, none_judged
    from ontopic.progress import progress, working

    by: judged_file.RowJudge
    opened = None
    if grading == "rubric":
        with working():
            opened = judge_of(project)
        by = judged_file.by_judge(opened)
    else:
        by = judged_file.by_grading(
            grading,
            project.settings.judge,
            policy=project.policy,
            prompts=project.settings.judge_prompts,
            cache=project.workspace.verdicts,
        )
    with reporting(as_json=as_json) as document, beside(out):
        with lasting_output(out) as file:
            with progress("verdicts", rows.n, unit="records") as advance:
                kept = judged_file.write_judged(rows, by, out=file, advance=advance)
            causes = judged_file.causes(file)
            report = judge_reports.JudgedFile(
                judge_id=by.id,
                out=str(out),
                records=rows.n,
                unjudged=dict(causes.most_common()),
                skipped=rows.skipped,
                kept=kept,
                winners=dict(judged_file.winners(file)) if grading == "pairwise" else None,
                card=None if grading == "pairwise" else judged_file.card_of_file(by.id, rows, out=file),
                agreement=agreement_of(opened) if opened else None,
            )
        document(report)
        console.print("\n".join(report.in_words()))
    if rows.n and causes.total() == rows.n:
        raise none_judged(rows.n, causes.most_common(1)[0][0])


@beginning
def calibrate(
    project: Project,
    *,
    judge: Annotated[list[Path] | None, typer.Option(help="A judge's settings as YAML; may be repeated.")] = None,
    template: Annotated[list[str] | None, typer.Option(help="A judge prompt's name; may be repeated.")] = None,
    split: Annotated[Literal["calibration", "evaluation"], typer.Option(help="Labelled data to measure on.")] = (
        "calibration"
    ),
    records: Annotated[Path | None, typer.Option(help="Labelled records to measure on instead.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure judges, those beside the one that gates too, and judge prompts on the same labelled records."""
    settings, policy, workspace = project.settings, project.policy, project.workspace
    if records is not None and split != "calibration":
        raise UserError("--split and --records exclude each other; give one of them")
    from ontopic.config.settings import JudgeChoice, LocalJudgeSettings
    from ontopic.data.labelled import LabelledRecord
    from ontopic.data.rows import load_rows
    from ontopic.judges.cards import choices
    from ontopic.judges.cards.calibration import calibration_records

    prompts = choices.read_prompts(settings.judge_prompts)
    given = [choices.load_judge_settings(path) for path in judge or []]
    chosen = choices.selected_judges(settings.judge, given, templates=template or [], prompts=prompts)
    beside = [] if judge or template else [side.judge for side in settings.judges_beside]
    choices.check_templates([*chosen, *beside], settings.judge_prompts)
    labelled, source = None, f"the {split} split"  # cards on the calibration split are kept, to measure none twice
    if records is not None:
        labelled, source = load_rows(records, LabelledRecord).rows, str(records)
    elif split != "calibration":
        labelled = calibration_records(policy, split)
    # Some seconds, which a mistake need not wait for.
    from ontopic.commands.judge_reports import JudgesShown
    from ontopic.judges.cards.comparison import compare_judges
    from ontopic.progress import working
    from ontopic.registry.tracking import open_tracking, register_prompts

    with reporting(as_json=as_json) as document, working():
        open_tracking(workspace, policy.registered_model)
        register_prompts(prompts)
        compared = compare_judges(
            [JudgeChoice(settings=each, prompts=settings.judge_prompts) for each in [*chosen, *beside]],
            policy,
            workspace=workspace,
            records=labelled,
            source=source,
        )
        guard = None if settings.guard == "off" else _guard(project)
        document(JudgesShown.of(compared, source, guard=guard))
    if not as_json:
        teachable = any(isinstance(each, LocalJudgeSettings) for each in chosen)
        console.print(compared_screen(compared, source, teachable=teachable))
        if guard:
            from ontopic.commands.guard import guard_screen

            console.print(guard_screen(*guard))
    for measured in compared.measured[: len(chosen)]:  # one beside may measure what no labelled record has
        measured.card.check_any_judged()


def _guard(project: Project) -> tuple[GuardCard, Path]:
    from ontopic.judges.guard.page import drawn_guard_card

    return drawn_guard_card(project.policy, project.workspace, budget=project.settings.serving.guard_budget)


def compared_table(cards: Sequence[JudgeCard], source: str) -> Group:
    """The judges' numbers side by side, and their ids below."""
    # Ids are long and terminals are narrow: the table has a number in place of each.
    table = Table(box=box.SIMPLE, padding=0, title=f"Judges on the {cards[0].n:,} labelled records of {source}")
    table.add_column("")
    for name in ("accuracy", "kappa", "sensitivity", "specificity", "unjudged", "s/1,000", "$/1,000"):
        table.add_column(name, justify="right", no_wrap=True)
    for number, card in enumerate(cards, start=1):
        shares = [_in_two_lines(each) for each in (card.accuracy, card.kappa, card.sensitivity, card.specificity)]
        seconds = f"{card.usage.seconds:.3g}" if card.usage else "–"
        price = "–" if card.usage is None or card.usage.usd is None else f"{card.usage.usd:.4g}"
        table.add_row(str(number), *shares, f"{card.unjudged:,}", seconds, price)
    ids = [Text(f"  {number}  {card.judge_id}") for number, card in enumerate(cards, start=1)]
    return Group(Text(), table, *ids, Text("Values with 95 % intervals, by the lower bound of accuracy.\n"))


def compared_screen(compared: JudgesCompared, source: str, *, teachable: bool) -> Group:
    """The judges' numbers side by side, whether the best differ, and what to open next.

    Args:
        teachable: whether one of them learns from labels; an LLM does not.
    """
    pages = [compared.page, *compared.pages]
    label = "  Label a random sample, for narrower intervals: python run.py label"
    if teachable:
        label = "  Label the records whose label would teach most: python run.py label --by uncertainty"
    return Group(
        compared_table([measured.card for measured in compared.ranked], source),
        *map(Text, compared.sentences),
        Text("\nOpen next:", style="bold"),
        *(Text(f"  {number}. {page}") for number, page in enumerate(pages, start=1)),
        Text(label),
        Text("  Compare the runs: python run.py ui"),
    )


def _in_two_lines(share: Rate) -> str:
    return share.with_interval.replace(" [", "\n[")
