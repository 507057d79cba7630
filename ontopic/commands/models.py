"""``evaluate``, ``promote``, ``rollback`` and ``delete``: model versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich import box
from rich.table import Table

from ontopic.commands.options import (
    By,
    Project,
    SkipBad,
    Why,
    account,
    beside,
    check_one_output,
    console,
    judge_of,
    on_project,
    reason,
    say_skipped,
    version_of,
    who,
)
from ontopic.commands.reporting import AsJson, reporting
from ontopic.errors import UserError
from ontopic.registry.approval import command
from ontopic.registry.promotions import open_registry
from ontopic.registry.sign_off import SignOff
from ontopic.state.whole_file import check_writable, output_file
from ontopic.statistics.scores import Scores

if TYPE_CHECKING:
    from ontopic.evaluation.answers import EvaluationSummary


@on_project
def evaluate(
    project: Project,
    *,
    questions: Annotated[Path, typer.Option(help="Questions with `question` and boolean `in_scope`.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    model: Annotated[str, typer.Option(help="champion, challenger, base, or a version number.")] = "champion",
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Measure a model version, behind the guard that is enforced: guardrail score, over-refusal, leak."""
    from ontopic.data.labelled import Question
    from ontopic.data.rows import load_rows

    loaded = load_rows(questions, Question, skip_bad=skip_bad)
    check_one_output(out, as_json=as_json)
    check_writable(out)
    from ontopic.evaluation import answers
    from ontopic.judges.guard.card import enforced_guard
    from ontopic.models.loading import open_model
    from ontopic.progress import working
    from ontopic.statistics.scores import score

    settings, choice = project.settings.model, project.settings.judge_choice
    with working():
        version = version_of(project, model)
        evaluation = answers.evaluate(
            open_model(version.folder, settings.answering_precision),
            version.version,
            judge=judge_of(project),
            questions=loaded.rows,
            max_new_tokens=settings.max_new_tokens,
            batch_size=settings.batch_size,
            guard=enforced_guard(choice, project.policy, workspace=project.workspace),
        )
    evaluated = evaluation.summary()
    with output_file(out) as part:
        # Lone surrogates can stand in JSON input; no file can hold them.
        written = {"model": model, "version": version.version, **evaluated.model_dump(mode="json")}
        part.write_text(json.dumps(written, ensure_ascii=False, indent=1), encoding="utf-8", errors="replace")
    with reporting(as_json=as_json) as document, beside(out):
        document(Evaluated(model=model, version=version.version, out=str(out), **_told(evaluated)))
        for name in ("guardrail_score", "over_refusal", "leak"):
            share = getattr(evaluated, name)
            console.print(f"{name:<16} {share}")
        if evaluation.alone is not None:
            alone = score(evaluation.alone.verdicts)
            console.print(
                f"without the guard: score {alone.guardrail_score}, {alone.over_refusal} declined, {alone.leak} leaked"
            )
        if evaluated.kinds:
            console.print(kinds_table(evaluated))
        say_skipped(loaded.skipped)
        console.print(
            f"model version {version.version}, {evaluated.unjudged} unjudged; answers and verdicts are in {out}"
        )
    evaluated.check_any_judged()


class Evaluated(Scores):
    """A version's scores, by kind of question too; the answers are in the file ``out``."""

    model: str
    version: str
    out: str
    kinds: dict[str, Scores]


def _told(evaluated: EvaluationSummary) -> dict[str, Any]:
    return {name: value for name, value in evaluated if name != "answers"}


def kinds_table(evaluated: EvaluationSummary) -> Table:
    """Guardrail score by kind of question."""
    table = Table(box=box.SIMPLE, padding=0, title="By kind of question: guardrail score and 95 % interval")
    for column in ("kind", "score [interval]", "n"):
        justify: Literal["left", "right"] = "left" if column == "kind" else "right"
        table.add_column(column, justify=justify)
    for kind, scores in sorted(evaluated.kinds.items()):
        share = scores.guardrail_score
        table.add_row(kind, share.with_interval, str(share.n))
    return table


@on_project
def promote(
    version: Annotated[str, typer.Argument(help="The version that becomes the champion.")],
    project: Project,
    *,
    why: Why,
    by: By = None,
    override: Annotated[
        bool, typer.Option("--override", help="Without the approval that `promotion.approval` asks for.")
    ] = False,
) -> None:
    """Make a version the champion by hand. Who, when, why and its gate stay on record; running services follow."""
    registry = open_registry(project.workspace, project.policy.registered_model)
    found = registry.version(version)
    sign_off = SignOff(project.settings.promotion, project.policy, workspace=project.workspace)
    if found != registry.champion() and sign_off.is_asked_for(found):
        if not override:
            raise UserError(
                f"version {found} needs approval (promotion.approval), which is given by "
                f"{command('approve', found)} once it has passed the gate; --override promotes it without, and the "
                "promotion record keeps that"
            )
        done = sign_off.override(found, by=who(by), why=reason(why), account=account())
    else:
        done = registry.promote(found, by=who(by), why=reason(why))
    before = done.before or "no other"
    console.print(f"version {done.version} is the champion in place of {before}, by {done.by}; its gate: {done.gate}")
    if done.override:
        lacking = "the approval that is asked for" if override else f"a gate that it passed against {before}"
        console.print(f"on record as an override: without {lacking} (python run.py record {done.version})")


@on_project
def delete(
    version: Annotated[str, typer.Argument(help="The version: its number, or challenger.")],
    project: Project,
    *,
    why: Why,
    by: By = None,
) -> None:
    """Delete a version that is not needed any more, with its weights. What it was trained on stays with its run.

    The champion, the one before it, the base model and what waits for approval are needed.
    """
    from ontopic.registry import deletion
    from ontopic.registry.tracking import open_tracking

    name = project.policy.registered_model
    registry = open_registry(project.workspace, name)
    found = registry.version(version)
    open_tracking(project.workspace, name)
    left = deletion.delete(
        name, found, by=who(by), why=reason(why), settings=project.settings.promotion, workspace=project.workspace
    )
    console.print(f"version {found} is deleted by {who(by)}")
    if left:
        console.print(f"NOT deleted: its weights at {left}")


@on_project
def rollback(project: Project, *, why: Why, by: By = None) -> None:
    """Give the champion's place back to the version that had it before."""
    registry = open_registry(project.workspace, project.policy.registered_model)
    done = registry.roll_back(who(by), why=reason(why))
    console.print(f"version {done.version} is the champion again in place of {done.before}, by {done.by}")
