"""OnTopic's command line. `python run.py` runs the whole loop; `python run.py --help` lists the commands."""

from __future__ import annotations

import json
import logging
import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

try:
    import typer
except ModuleNotFoundError:
    sys.exit("error: this Python lacks what OnTopic needs; run `make setup`, then `source .venv/bin/activate`")
from dotenv import load_dotenv
from filelock import FileLock, Timeout
from rich import box
from rich.console import Console
from rich.table import Table

from ontopic.config.durations import duration
from ontopic.config.policy import Policy, load_policy
from ontopic.config.settings import Settings, load_settings
from ontopic.errors import UserError
from ontopic.state.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from ontopic.judges.cards.comparison import JudgesCompared
    from ontopic.judges.judge import Judge
    from ontopic.monitoring.alerts import Alerts
    from ontopic.statistics.rates import Rate
    from ontopic.statistics.scores import Scores
    from ontopic.traffic.store import TrafficStore
    from pipelines.loop import LoopResult

ROOT = Path(__file__).resolve().parent
console = Console(highlight=False, markup=False, soft_wrap=True)
app = typer.Typer(add_completion=False, no_args_is_help=False, pretty_exceptions_enable=False, rich_markup_mode=None)
traffic_app = typer.Typer(rich_markup_mode=None)
app.add_typer(traffic_app, name="traffic")
alerts_app = typer.Typer(rich_markup_mode=None)
app.add_typer(alerts_app, name="alerts")
keys_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Make, list and revoke API keys.")
app.add_typer(keys_app, name="keys")

Config = Annotated[Path, typer.Option("--config", help="Configuration file.")]
State = Annotated[Path, typer.Option("--state", help="Folder of everything that is kept between runs.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out malformed rows instead of stopping.")]
LOCAL = ROOT / "configs" / "local.yaml"
STATE = ROOT / ".ontopic"
_JUDGED_TO_LABEL = 2000  # the newest records, among which the least sure are looked for


@app.callback(invoke_without_command=True)
def loop(context: typer.Context, config: Config = LOCAL, state: State = STATE) -> None:
    """Serve a model, ask it, judge it, and retrain and promote it on evidence. Without a command: the whole loop."""
    if _leaves_to_command(context):
        return
    settings, policy, workspace = _open(config, state)
    with _locked(workspace):
        console.print(f"OnTopic: policy {policy.name}, model {settings.model.name}, state in {workspace.root}")
        _check_ready(settings)
        from ontopic.registry.tracking import close_stale_runs, open_tracking
        from pipelines.stack import open_stack

        stack, workspace = open_stack(workspace)
        console.print(f"ZenML stack: {stack}. MLflow: {workspace.mlflow_uri}")
        open_tracking(workspace, policy.registered_model)
        close_stale_runs(workspace, policy.registered_model)
        from pipelines.loop import run_loop

        result = run_loop(
            settings, policy, workspace=workspace, tell=lambda line: console.print(f"\n{line}", style="bold")
        )
        _show(result, policy, workspace)


@app.command()
def ui(
    config: Config = LOCAL,
    state: State = STATE,
    port: Annotated[int, typer.Option(help="Port of the UI.")] = 5000,
    monitoring: Annotated[
        bool, typer.Option("--monitoring", help="Evidently's dashboard of the windows, not MLflow.")
    ] = False,
) -> None:
    """Open the MLflow UI, with champion and challenger ready to compare. Ctrl-C ends it."""
    _, policy, workspace = _open(config, state)
    if monitoring:
        if not workspace.evidently.is_dir():
            raise UserError("there is no closed window yet; watch some traffic: python run.py watch")
        console.print(f"Evidently: http://127.0.0.1:{port}/projects, project {policy.registered_model}")
        # Evidently's server has to know our metrics to read their values.
        started = "import runpy, ontopic.reports.metrics; runpy.run_module('evidently.cli', run_name='__main__')"
        command = [sys.executable, "-c", started, "ui", "--workspace", str(workspace.evidently)]
        _until_ctrl_c([*command, "--port", str(port)])
    from ontopic.registry.tracking import comparison_path, open_tracking

    experiment = open_tracking(workspace, policy.registered_model)
    if workspace.mlflow_uri.startswith("http"):
        console.print(f"MLflow: {workspace.mlflow_uri}/{comparison_path(experiment)}")
        return
    base = f"http://127.0.0.1:{port}"
    console.print(f"Experiment: {base}/#/experiments/{experiment}")
    console.print(f"Champion against challenger: {base}/{comparison_path(experiment)}")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", workspace.mlflow_uri]
    command += ["--default-artifact-root", str(workspace.root / "mlartifacts"), "--port", str(port), "--workers", "1"]
    _until_ctrl_c(command)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="What to ask the champion.")],
    config: Config = LOCAL,
    state: State = STATE,
) -> None:
    """Ask the champion one question and judge its answer."""
    settings, policy, workspace = _open(config, state)
    if not question.strip():
        raise UserError("the question is empty; ask something")
    from ontopic.models.generation import generate
    from ontopic.models.loading import load
    from ontopic.records import Record

    version = _version("champion", policy, workspace)
    model = load(version.folder, settings.model.precision)
    (answer,) = generate(model, [[{"role": "user", "content": question}]], max_new_tokens=settings.model.max_new_tokens)
    (verdict,) = _judge(settings, policy, workspace).judge([Record(question=question, answer=answer.text)])
    print(answer.text)
    score = "" if verdict.score is None else f" (score {verdict.score:.2f})"
    print(f"\nversion {version.version}, verdict {verdict.outcome}{score}: {verdict.explanation or verdict.cause}")


@app.command()
def evaluate(
    questions: Annotated[Path, typer.Option(help="Questions with `question` and boolean `in_scope`.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    model: Annotated[str, typer.Option(help="champion, challenger, base, or a version number.")] = "champion",
    config: Config = LOCAL,
    state: State = STATE,
    skip_bad: SkipBad = False,
) -> None:
    """Measure a model version on labelled questions: guardrail score, over-refusal, leak."""
    settings, policy, workspace = _open(config, state)
    from ontopic.data.labelled import Question, load_rows

    loaded = load_rows(questions, Question, skip_bad=skip_bad)
    _check_writable(out)
    from ontopic.evaluation import answers as evaluation
    from ontopic.models.loading import load

    version = _version(model, policy, workspace)
    evaluated = evaluation.evaluate(
        load(version.folder, settings.model.precision),
        version.version,
        judge=_judge(settings, policy, workspace),
        questions=loaded.rows,
        max_new_tokens=settings.model.max_new_tokens,
        batch_size=settings.model.batch_size,
    ).summary()
    _write_whole(
        out, json.dumps({"model": model, "version": version.version, **evaluated}, ensure_ascii=False, indent=1)
    )
    for name in ("guardrail_score", "over_refusal", "leak"):
        share = evaluated[name]
        value = "none" if share["value"] is None else f"{share['value']:.3f} [{share['low']:.3f}, {share['high']:.3f}]"
        print(f"{name:<16} {value} (n={share['n']})")
    if evaluated["kinds"]:
        table = Table(box=box.SIMPLE, padding=0, title="By kind of question: guardrail score and 95 % interval")
        for column in ("kind", "score", "interval", "n"):
            table.add_column(column, justify="left" if column == "kind" else "right")
        for kind, scores in sorted(evaluated["kinds"].items()):
            share = scores["guardrail_score"]
            numbers = (
                ("–", "–")
                if share["value"] is None
                else (f"{share['value']:.3f}", f"{share['low']:.3f}–{share['high']:.3f}")
            )
            table.add_row(kind, *numbers, str(share["n"]))
        console.print(table)
    _say_skipped(loaded.skipped)
    print(f"model version {version.version}, {evaluated['unjudged']} unjudged; answers and verdicts are in {out}")


@app.command()
def judge(
    records: Annotated[Path, typer.Option(help="Records with `question`, `answer` and optionally `label`.")],
    out: Annotated[Path, typer.Option(help="JSONL file to write.")],
    grading: Annotated[
        Literal["rubric", "pairwise", "reference"],
        typer.Option(
            help="rubric: by the judge; pairwise: against `benchmark_answer`; reference: against `reference`."
        ),
    ] = "rubric",
    config: Config = LOCAL,
    state: State = STATE,
    skip_bad: SkipBad = False,
) -> None:
    """Judge records; print the judge's card where they carry labels. A call that was stopped is taken up again."""
    settings, policy, workspace = _open(config, state)
    from ontopic.data.labelled import LabelledRecord, stream_rows

    rows = stream_rows(records, LabelledRecord, skip_bad=skip_bad)
    _check_writable(out)
    from ontopic.judges import judged_file
    from ontopic.progress import progress
    from ontopic.statistics.rates import rate

    by: judged_file.RowJudge[Any]
    if grading == "rubric":
        opened = _judge(settings, policy, workspace)
        by = judged_file.by_judge(opened)
    else:
        by = judged_file.by_grading(
            grading, settings.judge, policy=policy, prompts=settings.judge_prompts, cache=workspace.verdicts
        )
    with progress("verdicts", rows.n, unit="records") as advance:
        kept = judged_file.write_judged(rows, by, out=out, advance=advance)
    if grading == "pairwise":
        won = judged_file.winners(out)
        print(f"the answer wins {won['a']}, the benchmark's wins {won['b']}, ties {won['tie']}")
        print(f"share won of those decided: {rate(won['a'], won['a'] + won['b'])}; {won['unjudged']} unjudged")
    elif card := judged_file.card_of_file(by.id, rows, out=out):
        print(card)
    if grading == "rubric" and (agreement := getattr(opened, "agreement", None)):
        print(f"agreement of the panel (Krippendorff's alpha) {agreement()}")
    if kept:
        print(f"{kept} verdicts were kept from a call that was stopped")
    _say_skipped(rows.skipped)
    print(f"{rows.n} verdicts are in {out}")


@app.command()
def calibrate(
    judge: Annotated[list[Path] | None, typer.Option(help="A judge's settings as YAML; may be repeated.")] = None,
    template: Annotated[list[str] | None, typer.Option(help="A judge prompt's name; may be repeated.")] = None,
    split: Annotated[Literal["calibration", "evaluation"], typer.Option(help="Labelled data to measure on.")] = (
        "calibration"
    ),
    records: Annotated[Path | None, typer.Option(help="Labelled records to measure on instead.")] = None,
    config: Config = LOCAL,
    state: State = STATE,
) -> None:
    """Measure judges and judge prompts on the same labelled records, and compare them."""
    settings, policy, workspace = _open(config, state)
    if records is not None and split != "calibration":
        raise UserError("--split and --records exclude each other; give one of them")
    from ontopic.data.labelled import LabelledRecord, load_rows
    from ontopic.judges.cards import comparison
    from ontopic.judges.cards.calibration import calibration_records
    from ontopic.registry.tracking import open_tracking, register_prompts

    prompts = comparison.read_prompts(settings.judge_prompts)
    given = [comparison.load_judge_settings(path) for path in judge or []]
    chosen = comparison.selected_judges(settings.judge, given, templates=template or [], prompts=prompts)
    labelled, source = None, f"the {split} split"  # cards on the calibration split are kept, to measure none twice
    if records is not None:
        labelled, source = load_rows(records, LabelledRecord).rows, str(records)
    elif split != "calibration":
        labelled = calibration_records(policy, split, workspace=workspace)
    open_tracking(workspace, policy.registered_model)
    register_prompts(prompts)
    compared = comparison.calibrate_judges(
        chosen,
        policy,
        prompts=settings.judge_prompts,
        workspace=workspace,
        records=labelled,
        source=source,
        traffic=settings.traffic.questions,
    )
    _show_judges(compared, source)


@app.command()
def label(
    records: Annotated[Path | None, typer.Option(help="Records to label, not the newest model's traffic.")] = None,
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="How many records to ask for.")] = 20,
    by: Annotated[
        Literal["random", "uncertainty", "feedback"],
        typer.Option(
            help="random: to measure the judge; uncertainty: what teaches it most; feedback: what got a thumb."
        ),
    ] = "random",
    config: Config = LOCAL,
    state: State = STATE,
) -> None:
    """Label records one by one on the terminal, and print the judge's updated card."""
    settings, policy, workspace = _open(config, state)
    from ontopic.data import labels as labelling
    from ontopic.data.labelled import LabelledRecord, load_rows
    from ontopic.progress import progress
    from ontopic.records import Record

    notes: dict[str, str] = {}
    if by == "feedback":
        if records is not None:
            raise UserError("--records and --by feedback exclude each other: feedback is on stored traffic")
        found, notes = _with_feedback(workspace)
    elif records is not None:
        rows = load_rows(records, LabelledRecord).rows
        found = [
            Record(question=row.question, answer=row.answer, in_scope=row.in_scope) for row in rows if row.label is None
        ]
    else:
        found = _newest_traffic(workspace)
    store = labelling.LabelStore(workspace.labels / f"{policy.name}.jsonl")
    drawable = store.unlabelled(labelling.drawable(found, by))
    if by == "random":
        chosen = labelling.random_sample(drawable, number)
        purpose = "drawn at random: their labels go to the calibration split and count in the judge's card"
        other = "uncertainty"
    elif by == "feedback":
        chosen = list(range(len(drawable)))[:number]
        purpose = "which somebody gave a thumb: their labels go to the training split, never into the card"
        other = "random"
    else:
        drawable = drawable[-_JUDGED_TO_LABEL:]
        # Without the records' scopes: how sure the judge is of the scope is part of what a label would teach.
        opened = _judge(settings, policy, workspace)
        with progress("verdicts", len(drawable), unit="records") as advance:
            verdicts = opened.judge([Record(question=r.question, answer=r.answer) for r in drawable], advance)
        chosen = labelling.most_informative(drawable, [verdicts], n=number)
        purpose = "drawn where the judge is least sure: their labels go to the training split, never into the card"
        other = "random"
    print(f"{len(chosen)} of {len(found)} records, {purpose}; one half of the questions is left to --by {other}")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a record's characters
    shown = [drawable[i] for i in chosen]
    labelled = labelling.label_records(
        shown,
        store,
        by=by,
        definition=policy.definition,
        notes=[notes[record.id] for record in shown] if notes else None,
    )
    splits = [row.split for row in store.labels()]
    card, training = splits.count("calibration"), splits.count("train")
    print(f"{labelled} labelled now; {store.path} holds {card} labels for the judge's card and {training} for training")
    if labelled:
        from ontopic.judges.cards.calibration import calibrate

        print(calibrate(_judge(settings, policy, workspace), policy, workspace=workspace))


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="IP address to listen on; 0.0.0.0 is open to the network.")] = "127.0.0.1",
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Ask for no API key; on this machine only.")] = False,
    config: Config = LOCAL,
    state: State = STATE,
) -> None:
    """Serve the champion, and whichever comes after it, behind an OpenAI-compatible API until Ctrl-C."""
    import time

    settings, policy, workspace = _open(config, state)
    version = _version("champion", policy, workspace)
    from serving.keys import KeyStore
    from serving.process import ServedModel

    served = ServedModel(
        version.folder,
        version.version,
        model_name=policy.registered_model,
        traffic=workspace.traffic,
        state=workspace.root,
        port=settings.serving.port,
        max_new_tokens=settings.model.max_new_tokens,
        host=host,
        keys=workspace.keys,
        no_auth=no_auth,
        follow=workspace.mlflow_uri,
        spool=settings.serving.spool,
        precision=settings.model.precision,
    )
    keys = [] if no_auth else KeyStore(workspace.keys).all()
    if not no_auth and not any(key.state(datetime.now(UTC)) == "active" for key in keys):
        print("there is no API key yet, so all are refused; make one: python run.py keys make NAME", file=sys.stderr)
    try:
        with served:
            print(
                f"version {version.version} of {policy.registered_model} at {served.base_url}; Ctrl-C ends it",
                flush=True,
            )
            while served.is_alive():
                time.sleep(1)
            raise UserError(f"the served model ended; see {served.log}")
    except KeyboardInterrupt:
        print("stopped")


@app.command()
def watch(
    every: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between two looks at the traffic.")] = 10.0,
    since: Annotated[
        str | None,
        typer.Option(help="On the first start: watch traffic from so long ago, such as 7d, not since the promotion."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Close windows and alert; train and promote nothing.")] = (
        False
    ),
    config: Config = LOCAL,
    state: State = STATE,
) -> None:
    """Close windows as time passes, alert, retrain what is detected, and roll back what is worse. Until Ctrl-C."""
    import time

    settings, policy, workspace = _open(config, state)
    start = None if since is None else datetime.now(UTC) - duration(since)
    with _locked(workspace):
        _check_ready(settings)
        champion = _version("champion", policy, workspace)
        from ontopic.registry import versions as registry
        from ontopic.watch.watcher import Watcher
        from pipelines.retrain import improve_on_traffic
        from pipelines.stack import open_stack

        _, workspace = open_stack(workspace)
        promotions = registry.promotions(policy.registered_model)
        watcher = Watcher(
            settings,
            policy,
            workspace=workspace,
            improve=improve_on_traffic(settings, policy, workspace=workspace),
            tell=lambda line: print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {line}", flush=True),
            since=start or (promotions[-1].at if promotions else None),
            dry_run=dry_run,
        )
        print(f"version {champion.version} of {policy.registered_model} is watched; Ctrl-C ends it", flush=True)
        try:
            while True:
                watcher.turn()
                if once:
                    break
                time.sleep(every)
        except KeyboardInterrupt:
            print("stopped")
        finally:
            watcher.close()
    print("see where it stands: python run.py status")


@app.command()
def status(config: Config = LOCAL, state: State = STATE) -> None:
    """Show champion, service, traffic, windows, alerts and what the automatic loop did, on one screen."""
    settings, policy, workspace = _open(config, state)
    from ontopic.commands.status import overview

    console.print(overview(settings, policy, workspace=workspace))


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="The version that becomes the champion.")],
    why: Annotated[str, typer.Option(help="The reason, for the auditor.")],
    by: Annotated[str | None, typer.Option(help="Who decides; the user of this machine by default.")] = None,
    config: Config = LOCAL,
    state: State = STATE,
) -> None:
    """Make a version the champion by hand. Who, when and why stay on the registry; running services follow."""
    from ontopic.registry import versions as registry

    _, policy, workspace = _open(config, state)
    found = _version(version, policy, workspace)
    done = registry.promote(policy.registered_model, found.version, by=by or _user(), why=_reason(why))
    gate = registry.tags_of(policy.registered_model, found.version).get("ontopic.gate", "not run")
    print(f"version {done.version} is the champion in place of {done.before or 'none'}, by {done.by}; its gate: {gate}")


@app.command()
def rollback(
    why: Annotated[str, typer.Option(help="The reason, for the auditor.")],
    by: Annotated[str | None, typer.Option(help="Who decides; the user of this machine by default.")] = None,
    config: Config = LOCAL,
    state: State = STATE,
) -> None:
    """Give the champion's place back to the version that had it before."""
    from ontopic.registry import versions as registry
    from ontopic.registry.tracking import open_tracking

    _, policy, workspace = _open(config, state)
    open_tracking(workspace, policy.registered_model)
    done = registry.roll_back(policy.registered_model, by or _user(), why=_reason(why))
    print(f"version {done.version} is the champion again in place of {done.before}, by {done.by}")


@alerts_app.callback(invoke_without_command=True)
def alerts(context: typer.Context, config: Config = LOCAL, state: State = STATE) -> None:
    """Show the last alerts, open and closed, and what became of their notifications; or close, test or send."""
    if _leaves_to_command(context):
        return
    with _alerts(config, state) as store:
        found = store.history(20)
    if not found:
        raise UserError("there was no alert yet; python run.py watch raises them (docs/alerts.md)")
    table = Table(box=box.SIMPLE, padding=0, title="Alerts, the newest first")
    for name in ("id", "raised (UTC)", "severity", "rule", "events", "state", "sent/waiting/failed"):
        numeric = name in ("id", "events", "sent/waiting/failed")
        table.add_column(name, no_wrap=name != "rule", overflow="fold", justify="right" if numeric else "left")
    for alert in found:
        told = f"{alert.sent}/{alert.waiting}/{alert.failed}"
        row = (f"{alert.raised_at:%Y-%m-%d %H:%M}", alert.severity, alert.rule, f"{alert.events:,}")
        table.add_row(str(alert.id), *row, "closed" if alert.closed_at else "open", told)
    console.print(table)
    for alert in found[:5]:
        ended = f" Closed {alert.closed_at:%Y-%m-%d %H:%M}: {alert.closed_by}." if alert.closed_at else ""
        console.print(f"{alert.id}: {alert.text}.{ended}")


@alerts_app.command("close")
def close_alert(
    alert: Annotated[int, typer.Argument(help="The alert's number.")],
    config: Config = LOCAL,
    state: State = STATE,
) -> None:
    """Close an open alert by hand, so that its rule can raise another."""
    with _alerts(config, state) as store:
        store.close_alert(alert, at=datetime.now(UTC), by=_user())
    print(f"alert {alert} is closed")


@alerts_app.command("test")
def test_alerts(config: Config = LOCAL, state: State = STATE) -> None:
    """Send a test to whoever the rules notify, and say which was taken."""
    with _alerts(config, state) as store:
        found = store.test()
    if not found:
        raise UserError("no rule notifies anybody; give `notify` under `alerts` of the configuration (docs/alerts.md)")
    for rule, target, taken in found:
        print(f"{'taken' if taken else 'FAILED'}: {target} of {rule}")
    if not all(taken for _, _, taken in found):
        raise UserError("not all were taken; check their URLs, and that their servers can be reached from here")


@alerts_app.command("send")
def send_alerts(config: Config = LOCAL, state: State = STATE) -> None:
    """Send what is due, as a running watch does."""
    with _alerts(config, state) as store:
        sent, failed = store.deliver(datetime.now(UTC))
    print(f"{sent} notifications were sent, {failed} failed")


@keys_app.command("make")
def make_key(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    requests_per_minute: Annotated[int | None, typer.Option(min=1, max=100_000, help="No limit by default.")] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, max=1_000_000_000, help="Of prompts and answers; no limit by default.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="When it ends, such as 90d or 12h; never by default.")] = None,
    config: Config = LOCAL,
    state: State = STATE,
) -> None:
    """Make an API key and print it, this once."""
    _, _, workspace = _open(config, state)
    from serving.keys import KeyStore

    expires_in = None if expires is None else duration(expires)
    if expires_in is not None and not expires_in:
        raise UserError(f"--expires {expires} is over at once; give days or hours from now, such as 90d")
    key = KeyStore(workspace.keys).make(
        name, requests_per_minute, tokens_per_minute=tokens_per_minute, expires_in=expires_in
    )
    print(f"the key of {name}; it is shown this once:", file=sys.stderr)
    print(key)


@keys_app.command("list")
def list_keys(config: Config = LOCAL, state: State = STATE) -> None:
    """List the API keys: their names, beginnings, limits and whether they are valid."""
    _, _, workspace = _open(config, state)
    from serving.keys import KeyStore

    keys = KeyStore(workspace.keys).all()
    if not keys:
        raise UserError("there is no API key yet; make one: python run.py keys make NAME")
    table = Table(box=box.SIMPLE, padding=0)
    for title in ("name", "key", "requests/min", "tokens/min", "made", "expires", "state"):
        justify: Literal["left", "right"] = "right" if title.endswith("/min") else "left"
        table.add_column(title, no_wrap=title != "name", overflow="fold", justify=justify)
    for key in keys:
        limits = ["–" if n is None else f"{n:,}" for n in (key.requests_per_minute, key.tokens_per_minute)]
        times = [f"{time:%Y-%m-%d}" if time else "never" for time in (key.made_at, key.expires_at)]
        table.add_row(key.name, f"{key.prefix}…", *limits, *times, key.state(datetime.now(UTC)))
    console.print(table)


@keys_app.command("revoke")
def revoke_key(
    name: Annotated[str, typer.Argument(help="The name that it was made with.")],
    config: Config = LOCAL,
    state: State = STATE,
) -> None:
    """Make an API key invalid for good; a running service refuses it within two seconds."""
    _, _, workspace = _open(config, state)
    from serving.keys import KeyStore

    KeyStore(workspace.keys).revoke(name)
    print(f"the key {name} is revoked")


@traffic_app.callback(invoke_without_command=True)
def traffic(context: typer.Context, config: Config = LOCAL, state: State = STATE) -> None:
    """Say what traffic is stored; or import, export, prune or send some."""
    if _leaves_to_command(context):
        return
    _, _, workspace = _open(config, state)
    with _stored_traffic(workspace) as store:
        summary = store.summary()
    if not summary.n:
        raise UserError(
            f"{_traffic_name(workspace)}: there is no traffic yet; run the loop, serve a model or import some"
        )
    table = Table(box=box.SIMPLE, padding=0, title=f"{summary.n:,} records in {_traffic_name(workspace)}")
    for name in ("model version", "records", "from (UTC)", "to (UTC)"):
        table.add_column(name, justify="right" if name == "records" else "left", no_wrap=name != "model version")
    for each in summary.versions:
        times = [f"{time:%Y-%m-%d %H:%M:%S}" for time in (each.first, each.last)]
        table.add_row(each.model_version or "unknown", f"{each.n:,}", *times)
    console.print(table)
    counts = ", ".join(f"{n:,} of kind {kind}" for kind, n in summary.redacted.items())
    console.print(f"Personal data taken out: {counts or 'none'}")


@traffic_app.command("import")
def import_records(
    file: Annotated[Path, typer.Argument(help="JSONL or Parquet: records, OpenAI-style chats, MLflow traces.")],
    config: Config = LOCAL,
    state: State = STATE,
    skip_bad: SkipBad = False,
) -> None:
    """Store the records of a file. An import that was stopped is taken up again; none is stored twice."""
    _, _, workspace = _open(config, state)
    from ontopic.traffic.files import import_traffic
    from ontopic.traffic.store import TrafficStore

    with TrafficStore(workspace.traffic) as store:
        done = import_traffic(file, store, skip_bad=skip_bad)
    _say_skipped(done.skipped)
    print(f"{done.stored} records were stored, {done.known} were there already; in {_traffic_name(workspace)}")


@traffic_app.command("export")
def export_records(
    out: Annotated[Path, typer.Argument(help="File to write.")],
    to: Annotated[
        Literal["jsonl", "parquet", "openai", "mlflow"] | None,
        typer.Option("--format", help="parquet for a name that ends so, else jsonl, where none is given."),
    ] = None,
    config: Config = LOCAL,
    state: State = STATE,
) -> None:
    """Write all records to a file, in order of time."""
    _, _, workspace = _open(config, state)
    from ontopic.traffic.files import export_traffic

    with _stored_traffic(workspace) as store:
        n = export_traffic(store, out, to=to)
    print(f"{n} records are in {out}")


@traffic_app.command()
def prune(
    older_than: Annotated[str | None, typer.Option(help="Delete what is older, such as 90d or 12h.")] = None,
    keep: Annotated[int | None, typer.Option(min=0, help="Delete all but the newest so many.")] = None,
    config: Config = LOCAL,
    state: State = STATE,
) -> None:
    """Delete old records for good."""
    _, _, workspace = _open(config, state)
    if older_than is None and keep is None:
        raise UserError("nothing says what to delete; give --older-than, --keep or both")

    with _stored_traffic(workspace) as store:
        deleted = store.prune(None if older_than is None else duration(older_than), keep)
        if workspace.windows.is_file():
            from ontopic.monitoring.windows import WindowStore

            with WindowStore(workspace.windows) as windows:  # a verdict's explanation can quote its record
                windows.forget(store.oldest() or datetime.now(UTC))
        print(f"{deleted} records were deleted, {store.count()} are left")


@traffic_app.command()
def send(
    questions: Annotated[Path, typer.Option(help="Questions with `question` and boolean `in_scope`.")],
    rate: Annotated[float, typer.Option(help="Questions a second.")],
    in_scope_share: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of in-scope questions; by default as in the file."),
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="How many to ask; each of the file once by default.")] = None,
    url: Annotated[str | None, typer.Option(help="An OpenAI-compatible server, with its /v1.")] = None,
    model: Annotated[str | None, typer.Option(help="The model's name there.")] = None,
    api_key_variable: Annotated[str | None, typer.Option(help="The environment variable that holds the key.")] = None,
    config: Config = LOCAL,
    state: State = STATE,
) -> None:
    """Ask questions at a rate, whether or not the earlier ones are answered, of the model that `serve` serves."""
    settings, policy, _ = _open(config, state)
    from ontopic.data.labelled import Question, load_rows
    from ontopic.progress import progress
    from ontopic.traffic.asking import Sent, ask_at_rate, key_of, questions_to_send

    if not 0 < rate < math.inf:
        raise UserError(f"--rate {rate} is no rate; give a number of questions a second above 0")
    if url is None and not settings.serving.port:
        raise UserError("serving.port is 0, so the server's port is not known; give its address with --url")
    key = key_of(api_key_variable)
    chosen = questions_to_send(load_rows(questions, Question).rows, count, in_scope_share=in_scope_share)
    sent = Sent()
    with progress("questions", len(chosen), unit="questions", status=lambda: str(sent)) as advance:
        ask_at_rate(
            chosen,
            url or f"http://127.0.0.1:{settings.serving.port}/v1",
            model=model or policy.registered_model,
            api_key=key,
            max_tokens=settings.traffic.max_tokens,
            rate=rate,
            sent=sent,
            advance=advance,
        )
    print(sent)
    if not sent.answered:
        raise UserError(f"no question was answered ({sent.error}); check that a server runs there: python run.py serve")
    if sent.failed:
        print(f"the first failure: {sent.error}")


def _leaves_to_command(context: typer.Context) -> bool:
    """Whether a command follows, which then takes the options."""
    if not context.invoked_subcommand:
        return False
    for name in ("config", "state"):
        source = context.get_parameter_source(name)
        if source and source.name == "COMMANDLINE":
            raise UserError(f"--{name} stands before the command; put it behind {context.invoked_subcommand}")
    return True


def _stored_traffic(workspace: Workspace) -> TrafficStore:
    """The traffic store, where there is one."""
    from ontopic.traffic.store import TrafficStore

    if isinstance(workspace.traffic, Path) and not workspace.traffic.is_file():
        raise UserError(f"{workspace.traffic}: there is no traffic yet; run the loop, serve a model or import some")
    return TrafficStore(workspace.traffic)


def _traffic_name(workspace: Workspace) -> str:
    from ontopic.traffic.store import store_name

    return store_name(workspace.traffic)


def _alerts(config: Path, state: Path) -> Alerts:
    settings, policy, workspace = _open(config, state)
    from ontopic.monitoring.alerts import Alerts

    return Alerts(workspace.alerts, settings.alerts, policy=policy.name)


def _open(config: Path, state: Path) -> tuple[Settings, Policy, Workspace]:
    settings = load_settings(config)
    return settings, load_policy(settings.policy), open_workspace(state)


@contextmanager
def _locked(workspace: Workspace) -> Iterator[None]:
    """One run or watch at a time a state folder. The kernel frees the lock of a process that dies."""
    lock = FileLock(workspace.root / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"another run or watch uses {workspace.root}; wait for it, or give another folder with --state"
        ) from None
    with lock:
        yield
        lock.release()


def _until_ctrl_c(command: list[str]) -> NoReturn:
    import subprocess

    try:
        raise SystemExit(subprocess.run(command, check=False, cwd=ROOT).returncode)
    except KeyboardInterrupt:
        raise SystemExit(0) from None


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        raise UserError("this machine does not say who you are; give your name with --by") from None


def _reason(why: str) -> str:
    if not why.strip():
        raise UserError("--why is empty; give the reason, for whoever asks later")
    return why.strip()


def _check_ready(settings: Settings) -> None:
    """Fail before any work where a key or a GPU that the configuration needs is missing."""
    from ontopic.config.settings import EndpointSettings, PanelJudgeSettings

    if settings.model.precision == "nf4":
        from ontopic.models.loading import nf4_config

        nf4_config()
    judges = settings.judge.judges if isinstance(settings.judge, PanelJudgeSettings) else [settings.judge]
    for asked in (settings.teacher, *judges):
        if isinstance(asked, EndpointSettings):
            from ontopic.endpoint.endpoint import Endpoint

            Endpoint(asked).check()


def _version(which: str, policy: Policy, workspace: Workspace) -> Any:
    from ontopic.registry import versions as registry
    from ontopic.registry.tracking import open_tracking

    open_tracking(workspace, policy.registered_model)
    return registry.find(policy.registered_model, which, state=workspace.root)


def _judge(settings: Settings, policy: Policy, workspace: Workspace) -> Judge:
    from ontopic.judges.cards.calibration import open_judge

    return open_judge(settings.judge_choice, policy, workspace=workspace)


def _newest_traffic(workspace: Workspace) -> list[Any]:
    """The records of the model version that was asked last."""
    from ontopic.traffic.store import TrafficStore

    if isinstance(workspace.traffic, str) or workspace.traffic.is_file():
        with TrafficStore(workspace.traffic) as store:
            for newest in store.newest(1):
                return store.records(model_version=newest.model_version)
    name = _traffic_name(workspace)
    raise UserError(f"{name}: there is no traffic yet; run the loop, or give records with --records")


def _with_feedback(workspace: Workspace) -> tuple[list[Any], dict[str, str]]:
    """The records that somebody gave a thumb, the newest first, and what was said of each."""
    with _stored_traffic(workspace) as store:
        said: dict[str, list[str]] = {}
        for each in store.feedback():
            said.setdefault(each.record_id, []).append(f"thumb {each.thumb} ({each.by or 'no key'}) {each.comment}")
        records = {record.id: record for record in store.records(ids=list(said))}
    if not said:
        raise UserError("there is no feedback yet; clients give it by POST /v1/feedback (docs/serving.md)")
    return [records[i] for i in said if i in records], {i: "\n".join(lines) for i, lines in said.items()}


def _check_writable(out: Path) -> None:
    if out.is_dir() or not out.resolve().parent.is_dir():
        raise UserError(f"{out}: cannot be written; give a file in an existing folder with --out")


def _write_whole(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    # Lone surrogates can stand in JSON input; no file can hold them.
    part.write_text(text, encoding="utf-8", errors="replace")
    part.replace(path)


def _say_skipped(skipped: int) -> None:
    if skipped:
        print(f"{skipped} malformed rows were left out")


def _show(result: LoopResult, policy: Policy, workspace: Workspace) -> None:
    """The last screen: before and after, the time, and what to open next."""

    def share(rate: Rate) -> str:
        return f"{rate.value:.3f}\n{rate.low:.3f}–{rate.high:.3f}" if rate.n else "no records"

    columns: list[tuple[str, Scores]] = []
    if result.before:
        columns.append((f"traffic\nversion {result.champion}", result.before.scores))
    if result.decision:
        columns.append((f"gate\nversion {result.champion}", result.decision.champion))
        columns.append((f"gate\nversion {result.challenger}", result.decision.challenger))
    if result.after:
        columns.append((f"fresh\nversion {result.challenger}", result.after.scores))
    table = Table(title="Before and after (value and 95 % interval)")
    table.add_column("", no_wrap=True)
    for title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for name in ("guardrail_score", "over_refusal", "leak"):
        shares = [share(getattr(scores, name)) for _, scores in columns]
        table.add_row(name.replace("_", "-" if name == "over_refusal" else " "), *shares)
    table.add_row("records", *[str(scores.guardrail_score.n) for _, scores in columns])
    times = Table(title="Time by stage")
    times.add_column("stage")
    times.add_column("seconds", justify="right")
    for stage, seconds in result.stages:
        times.add_row(stage, "reused" if seconds is None else f"{seconds:.1f}")
    times.add_row("total", f"{sum(seconds or 0 for _, seconds in result.stages):.1f}")
    console.print()
    console.print(times)
    reused = sum(seconds is None for _, seconds in result.stages)
    if reused:
        console.print(f"{reused} of {len(result.stages)} stages had not changed and were reused from ZenML's cache.")
    console.print(table)
    if result.decision is None:
        console.print(f"No window of version {result.champion} is under the threshold: nothing to improve.")
    else:
        for test in result.decision.tests:
            console.print(f"  {'passed' if test.passed else 'FAILED'}: {test.description}")
        verb = "is the champion now" if result.decision.passed else "stays a challenger: it failed the tests above"
        console.print(f"Version {result.challenger} {verb}.", style="bold")
    console.print("\nOpen next:", style="bold")
    reports = [result.before, result.decision, result.after]
    for number, report in enumerate((r.report for r in reports if r), start=1):
        console.print(f"  {number}. {report}")
    console.print("  Compare the runs: python run.py ui")


def _show_judges(compared: JudgesCompared, source: str) -> None:
    """The judges' numbers side by side, whether the best differ, and what to open next."""

    def share(numbers: Rate) -> str:
        return "–" if math.isnan(numbers.value) else f"{numbers.value:.3f}\n{numbers.low:.3f}–{numbers.high:.3f}"

    cards = [measured.card for measured in compared.ranked]
    # Ids are long and terminals are narrow: the table has a number in place of each.
    table = Table(box=box.SIMPLE, padding=0, title=f"Judges on the {cards[0].n:,} labelled records of {source}")
    table.add_column("")
    for name in ("accuracy", "kappa", "sensitivity", "specificity", "unjudged", "s/1,000", "$/1,000"):
        table.add_column(name, justify="right", no_wrap=True)
    for number, card in enumerate(cards, start=1):
        shares = [share(each) for each in (card.accuracy, card.kappa, card.sensitivity, card.specificity)]
        seconds = f"{card.usage.seconds:.3g}" if card.usage else "–"
        price = "–" if card.usage is None or card.usage.usd is None else f"{card.usage.usd:.4g}"
        table.add_row(str(number), *shares, f"{card.unjudged:,}", seconds, price)
    console.print()
    console.print(table)
    for number, card in enumerate(cards, start=1):
        console.print(f"  {number}  {card.judge_id}")
    console.print("Values with 95 % intervals, by the lower bound of accuracy.\n")
    for sentence in compared.sentences:
        console.print(sentence)
    console.print("\nOpen next:", style="bold")
    for number, page in enumerate([compared.page, *compared.pages], start=1):
        console.print(f"  {number}. {page}")
    console.print("  Label the records whose label would teach most: python run.py label --by uncertainty")
    console.print("  Compare the runs: python run.py ui")


def _user_error(error: BaseException | None) -> UserError | None:
    """The user's mistake behind an error: ZenML wraps what a step raises."""
    while error is not None:
        if isinstance(error, UserError):
            return error
        error = error.__cause__ or error.__context__
    return None


def main() -> None:
    """Run the command line; a user's mistake is one sentence and exit code 1."""
    load_dotenv(ROOT / ".env")
    warnings.filterwarnings("ignore")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        app()
    except Exception as error:
        mistake = _user_error(error)
        if mistake is None:
            raise
        print(f"error: {mistake}", file=sys.stderr)
        raise SystemExit(1) from None
    except SystemExit as ended:
        if ended.code == 130:  # what typer makes of Ctrl-C
            print("stopped; the next run goes on from here", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
