"""The loop and ``watch``: the commands that run pipelines."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Annotated

import typer

from ontopic.commands.erasure import finish
from ontopic.commands.locking import locked, work_on
from ontopic.commands.options import (
    Project,
    beginning,
    console,
    on_project,
    say,
    user_name,
    version_of,
)
from ontopic.commands.readiness import check_ready
from ontopic.commands.reporting import AsJson, reporting
from ontopic.commands.status import champion_in_words
from ontopic.config.durations import duration
from ontopic.errors import UserError
from ontopic.progress import working
from ontopic.registry.promotions import open_registry
from ontopic.visible import visible
from pipelines.at_work import step_at_work

if TYPE_CHECKING:
    from ontopic.config.settings import Settings
    from ontopic.evaluation.discordant import GatePairs
    from ontopic.state.workspace import Workspace
    from ontopic.statistics.scores import Scores
    from ontopic.watch.watcher import Turn, Watcher
    from pipelines.loop import LoopResult


def _say_version(wanted: bool) -> None:  # noqa: FBT001  # typer calls it
    if wanted:
        console.print(f"OnTopic {metadata.version('ontopic')}")
        raise typer.Exit


@beginning
def loop(
    context: typer.Context,
    project: Project,
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which release this is.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Serve a model, ask it, judge it, and retrain and promote it on evidence. Without a command: the whole loop."""
    settings, policy, workspace = project.settings, project.policy, project.workspace
    settings.check_weights("the loop")
    by = _started_by(settings)
    with reporting(as_json=as_json) as document, locked(workspace, policy.registered_model), working(step_at_work):
        say(f"OnTopic: policy {policy.name}, model {settings.model.name}, state in {workspace.root}")
        check_ready(settings)
        _check_sets(project)
        say("ZenML and MLflow are opened, which takes a while")
        result, workspace = _turned(project, by=by)
        finish(workspace, tell=print)
        registry = open_registry(workspace, policy.registered_model)
        from pipelines.last_screen import LoopReport, gate_pages, last_screen

        document(LoopReport.of(result))
        said, pairs = champion_in_words(registry), _pairs(result, project)
        name = policy.registered_model
        earlier = [] if result.decision else gate_pages(workspace.reports, name, champion=result.champion)
        console.print(last_screen(result, said, pairs=pairs, earlier=earlier))
    if result.before:
        check_any_judged(result.before.scores)


def _turned(project: Project, *, by: str | None) -> tuple[LoopResult, Workspace]:
    """Run the loop once on the ZenML stack that there is; what it did, and the workspace with this stack's MLflow."""
    from ontopic.registry.tracking import close_stale_runs, open_tracking
    from ontopic.watch.stores import name_older
    from pipelines.loop import run_loop
    from pipelines.stack import open_stack

    settings, policy = project.settings, project.policy
    stack, workspace = open_stack(project.workspace)
    say(f"ZenML stack: {stack}. MLflow: {workspace.mlflow_uri}")
    name_older(workspace, policy.registered_model)
    open_tracking(workspace, policy.registered_model)
    close_stale_runs(workspace, policy.registered_model)
    result = run_loop(settings, policy, workspace=workspace, by=by, tell=lambda line: say(f"\n{line}", style="bold"))
    return result, workspace


def _pairs(result: LoopResult, project: Project) -> GatePairs | None:
    """The answers of the result's gate."""
    from ontopic.evaluation.discordant import kept_pairs

    if result.decision is None:
        return None
    newest = kept_pairs(project.workspace, project.policy.registered_model)[-1:]
    return next((pairs for pairs in newest if pairs.challenger == result.challenger), None)


def check_any_judged(scores: Scores) -> None:
    """Let no outage of a judge pass for a result.

    Raises:
        UserError: there were answers, and none could be judged.
    """
    if scores.unjudged and not scores.guardrail_score.n:
        raise UserError(
            f"none of the {scores.unjudged:,} answers could be judged, so nothing is known of them; the causes are on "
            "the page of their window: see to the judge and run again"
        )


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
    as_json: AsJson = False,
) -> None:
    """Close windows as time passes, alert, retrain what is detected, and roll back what is worse. Until Ctrl-C."""
    import time

    settings, workspace = project.settings, project.workspace
    start, by = None if since is None else datetime.now(UTC) - duration(since), _started_by(settings)

    def tell(line: str) -> None:
        console.print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {line}")

    if as_json and not once:
        raise UserError("--json is for one look at the traffic; give --once too")
    with reporting(as_json=as_json) as document:

        def watched() -> None:
            with working(step_at_work):
                check_ready(settings)
                _check_sets(project)
                watcher, what = _watcher(project, tell=tell, since=start, by=by, dry_run=dry_run)
            how = "looked at once" if once else "watched; Ctrl-C ends it"
            how += "; nothing is trained, promoted or rolled back" if dry_run or settings.serving.upstream else ""
            console.print(f"{what} is {how}")
            with closing(watcher):
                first = _turn(watcher, workspace, tell=tell)
                tell(watcher.in_words(first))
                document(first)
                if once:
                    _check_closed(first)
                while not once:
                    time.sleep(every)
                    _turn(watcher, workspace, tell=tell)

        try:
            if once:
                with locked(workspace, project.policy.registered_model):
                    watched()
            else:
                work_on(workspace, project.policy.registered_model, work=watched, tell=tell)
        except KeyboardInterrupt:
            console.print("stopped")
        console.print("see where it stands: python run.py status")


def _turn(watcher: Watcher, workspace: Workspace, *, tell: Callable[[str], object]) -> Turn:
    if workspace.state_url is not None:
        from ontopic.state.lead import check_still_leading

        check_still_leading()
    with working(step_at_work):
        done = watcher.turn()
        if done.closed:
            watcher.log_closed()
        finish(workspace, tell=tell)  # what the turn wrote of what was erased meanwhile
    return done


def _check_closed(turn: Turn) -> None:
    """Let no outage of a judge pass for a look: see ``check_any_judged``."""
    results = [window.result for window in turn.closed if window.result]
    if results and all(result.scores.unjudged and not result.scores.guardrail_score.n for result in results):
        check_any_judged(results[-1].scores)


def _check_sets(project: Project) -> None:
    """Fail before any work where a preference set is not fit to be trained on.

    Raises:
        UserError: so it is.
    """
    if project.settings.training.preference_sets:
        from ontopic.training.preference_sets import read_sets

        for each in read_sets(project.settings.training.preference_sets, project.policy):
            left_out = f"; {each.left_out:,} rows are left out" if each.left_out else ""
            say(f"{visible(each.source)}: {len(each.pairs):,} preference pairs{left_out}")


def _watcher(
    project: Project, *, tell: Callable[[str], object], since: datetime | None, by: str | None, dry_run: bool
) -> tuple[Watcher, str]:
    """What watches, and what it watches, in words. Where the model is another server's, nothing is there to improve."""
    settings, policy, workspace = project.settings, project.policy, project.workspace
    name, improve = policy.registered_model, None
    if (upstream := settings.serving.upstream) is not None:
        what = f"{name}, a proxy to {upstream.model}, whose weights are not here,"
    else:
        console.print(f"{name}: champion, judge and ZenML are opened, which takes a while")
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
