"""The loop and ``watch``: the commands that run pipelines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ontopic.commands.erasure import finish
from ontopic.commands.options import (
    Project,
    beginning,
    console,
    locked,
    on_project,
    user_name,
    version_of,
)
from ontopic.commands.readiness import check_ready
from ontopic.commands.status import champion_in_words
from ontopic.config.durations import duration
from ontopic.data.terminal import visible
from ontopic.errors import UserError
from ontopic.registry.promotions import open_registry

if TYPE_CHECKING:
    from ontopic.config.settings import Settings
    from ontopic.statistics.scores import Scores
    from ontopic.watch.watcher import Watcher
    from pipelines.loop import LoopResult


def _say_version(wanted: bool) -> None:  # noqa: FBT001  # typer calls it
    if wanted:
        print(f"OnTopic {metadata.version('ontopic')}")
        raise typer.Exit


@beginning
def loop(
    context: typer.Context,
    project: Project,
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which release this is.")
    ] = False,
) -> None:
    """Serve a model, ask it, judge it, and retrain and promote it on evidence. Without a command: the whole loop."""
    settings, policy, workspace = project.settings, project.policy, project.workspace
    settings.check_weights("the loop")
    by = _started_by(settings)
    with locked(workspace):
        console.print(f"OnTopic: policy {policy.name}, model {settings.model.name}, state in {workspace.root}")
        check_ready(settings)
        _check_sets(project)
        console.print("ZenML and MLflow are opened, which takes a while")
        from ontopic.registry.tracking import close_stale_runs, open_tracking
        from ontopic.watch.stores import name_older
        from pipelines.stack import open_stack

        stack, workspace = open_stack(workspace)
        console.print(f"ZenML stack: {stack}. MLflow: {workspace.mlflow_uri}")
        name_older(workspace, policy.registered_model)
        open_tracking(workspace, policy.registered_model)
        close_stale_runs(workspace, policy.registered_model)
        from pipelines.loop import run_loop

        result = run_loop(
            settings, policy, workspace=workspace, by=by, tell=lambda line: console.print(f"\n{line}", style="bold")
        )
        finish(workspace, tell=print)
        registry = open_registry(workspace, policy.registered_model)
        console.print(last_screen(result, champion_in_words(registry)))


@on_project
def watch(
    project: Project,
    *,
    every: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between two looks at the traffic.")] = 10.0,
    since: Annotated[
        str | None,
        typer.Option(help="On the first start: watch traffic from so long ago, such as 7d, not since the promotion."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Close windows and alert; train and promote nothing.")
    ] = False,
) -> None:
    """Close windows as time passes, alert, retrain what is detected, and roll back what is worse. Until Ctrl-C."""
    import time

    settings, workspace = project.settings, project.workspace
    start, by = None if since is None else datetime.now(UTC) - duration(since), _started_by(settings)

    def tell(line: str) -> None:
        print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {line}", flush=True)

    with locked(workspace):
        check_ready(settings)
        _check_sets(project)
        watcher, what = _watcher(project, tell=tell, since=start, by=by, dry_run=dry_run)
        how = "looked at once" if once else "watched; Ctrl-C ends it"
        how += "; nothing is trained, promoted or rolled back" if dry_run or settings.serving.upstream else ""
        print(f"{what} is {how}", flush=True)
        try:
            turn = watcher.turn()
            tell(watcher.in_words(turn))
            while True:
                if turn.closed:
                    watcher.log_closed()
                finish(workspace, tell=tell)  # what the turn wrote of what was erased meanwhile
                if once:
                    break
                time.sleep(every)
                turn = watcher.turn()
        except KeyboardInterrupt:
            print("stopped")
        finally:
            watcher.close()
    print("see where it stands: python run.py status")


def _check_sets(project: Project) -> None:
    """Fail before any work where a preference set is not fit to be trained on.

    Raises:
        UserError: so it is.
    """
    if project.settings.training.preference_sets:
        from ontopic.training.preference_sets import read_sets

        for each in read_sets(project.settings.training.preference_sets, project.policy):
            left_out = f"; {each.left_out:,} rows are left out" if each.left_out else ""
            console.print(f"{visible(each.source)}: {len(each.pairs):,} preference pairs{left_out}")


def _watcher(
    project: Project, *, tell: Callable[[str], object], since: datetime | None, by: str | None, dry_run: bool
) -> tuple[Watcher, str]:
    """What watches, and what it watches, in words. Where the model is another server's, nothing is there to improve."""
    settings, policy, workspace = project.settings, project.policy, project.workspace
    name, improve = policy.registered_model, None
    if (upstream := settings.serving.upstream) is not None:
        what = f"{name}, a proxy to {upstream.model}, whose weights are not here,"
    else:
        print(f"{name}: champion, judge and ZenML are opened, which takes a while", flush=True)
        what = f"version {version_of(project, 'champion').version} of {name}"
        from pipelines.retrain import improve_on_traffic
        from pipelines.stack import open_stack

        _, workspace = open_stack(workspace)
        improve = improve_on_traffic(settings, policy, workspace=workspace, by=by)
    from ontopic.watch.watcher import Watcher

    promotions = open_registry(workspace, name).promotions()
    watcher = Watcher(
        settings,
        policy,
        workspace=workspace,
        improve=improve,
        tell=tell,
        since=since or (promotions[-1].at if promotions else None),
        dry_run=dry_run,
    )
    return watcher, what


def _started_by(settings: Settings) -> str | None:
    """Who starts the loop or `watch`, and so trains; ``None`` where the machine does not say and nobody need know.

    Raises:
        UserError: the machine does not say, and who trained a challenger may not be its only approver.
    """
    try:
        return user_name()
    except UserError:
        if settings.promotion.approval == "automatic":
            return None
        raise UserError(
            "this machine does not say who you are, and who trains a challenger may not be its only approver "
            "(promotion.approval); give your name in the environment variable USER"
        ) from None


def last_screen(result: LoopResult, champion: Sequence[str]) -> Group:
    """Before and after, the time by stage, what the gate found, and what to open next.

    Args:
        champion: what is known of it, for a loop that found nothing to improve.
    """
    parts: list[Table | Text] = [Text(), _times(result)]
    reused = sum(seconds is None for _, seconds in result.stages)
    if reused:
        parts.append(
            Text(f"{reused} of {len(result.stages)} stages had not changed and were reused from ZenML's cache.")
        )
    parts.append(_before_and_after(result))
    if (newest := result.after or result.before) and not newest.is_corrected:
        parts.append(Text(f"The guardrail score of the traffic is {newest.in_words}", style="bold"))
    parts += [*_decision(result, champion), Text("\nOpen next:", style="bold")]
    reports = [each.report for each in (result.before, result.decision, result.after) if each]
    parts += [Text(f"  {number}. {report}") for number, report in enumerate(reports, start=1)]
    parts.append(Text("  Compare the runs: python run.py ui"))
    return Group(*parts)


def _times(result: LoopResult) -> Table:
    table = Table(title="Time by stage")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for stage, seconds in result.stages:
        table.add_row(stage, "reused" if seconds is None else f"{seconds:.1f}")
    table.add_row("total", f"{sum(seconds or 0 for _, seconds in result.stages):.1f}")
    return table


def _before_and_after(result: LoopResult) -> Table:
    columns: list[tuple[str, Scores]] = []
    if result.before:
        columns.append((f"traffic\nversion {result.champion}", result.before.scores))
    if result.decision:
        columns.append((f"gate\nversion {result.champion}", result.decision.champion))
        columns.append((f"gate\nversion {result.challenger}", result.decision.challenger))
    if result.after:
        columns.append((f"fresh\nversion {result.challenger}", result.after.scores))
    title = "Before and after" if len(columns) > 1 else "What monitoring found"
    table = Table(title=f"{title} (value and 95 % interval)", padding=0)  # whole in 80 columns
    table.add_column("", no_wrap=True)
    for title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for name, label in (("guardrail_score", "guardrail score"), ("over_refusal", "over-refusal"), ("leak", "leak")):
        shares = [getattr(scores, name) for _, scores in columns]
        table.add_row(
            label, *[share.with_interval.replace(" [", "\n[") if share.n else "no records" for share in shares]
        )
    table.add_row("judged", *[str(scores.guardrail_score.n) for _, scores in columns])
    table.add_row("unjudged", *[str(scores.unjudged) for _, scores in columns])
    return table


def _decision(result: LoopResult, champion: Sequence[str]) -> list[Text]:
    waits = [Text(f"Waits: {wait}", style="bold") for wait in result.waiting]
    if result.no_gate:
        lines = [Text(f"Nothing was trained or promoted: {result.no_gate}.", style="bold")]
        lines.append(
            Text(
                "What the judge says of this traffic is a hint. What the data is enough for: "
                "python run.py policy check; label what was answered: python run.py label"
            )
        )
        return [*lines, *(Text(line) for line in champion), *waits]
    if result.decision is None and waits:
        return [Text("Nothing was trained while a challenger waits or is rolled out."), *waits]
    if result.decision is None:
        nothing = f"No window of version {result.champion} is detected: nothing to improve."
        return [Text(line) for line in (nothing, *champion)]
    lines = [Text(f"  {'passed' if test.passed else 'FAILED'}: {test.description}") for test in result.decision.tests]
    if result.decision.passed and waits:
        return [*lines, *waits]
    if result.decision.passed and result.ended:
        return [*lines, Text(f"Version {result.challenger} stays a challenger: {result.ended}", style="bold")]
    if result.decision.passed:
        return [*lines, Text(f"Version {result.challenger} is the champion now.", style="bold")]
    from ontopic.evaluation.advice import advice

    lines.append(
        Text(f"Version {result.challenger} stays a challenger: it failed the tests above. What to do:", style="bold")
    )
    return [*lines, *(Text(f"  {sentence}") for sentence in advice(result.decision))]
