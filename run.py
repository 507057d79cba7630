#!/usr/bin/env python
"""OnTopic's command line. `python run.py` runs the whole loop; `python run.py --help` lists the commands."""

from __future__ import annotations

import logging
import os
import sys
import warnings

# Before the imports: some warn, which PYTHONWARNINGS=error makes their end, and rich reads how wide it may print.
warnings.simplefilter("ignore")
if os.environ.get("COLUMNS", "").strip("0") == "":
    os.environ.pop("COLUMNS", None)
if sys.flags.optimize > 1:  # python -OO has no docstrings, of which --help and other libraries are made
    os.environ.pop("PYTHONOPTIMIZE", None)
    os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606
try:
    import typer
except ModuleNotFoundError:
    sys.exit("error: this Python lacks what OnTopic needs; run `make setup`, then `source .venv/bin/activate`")

from ontopic.commands import (
    alerts,
    approvals,
    judges,
    labels,
    models,
    policy,
    preferences,
    record,
    shell,
    state,
    traffic,
)
from ontopic.commands.demo import demo
from ontopic.commands.export import export
from ontopic.commands.faults import mistakes_behind
from ontopic.commands.listing import CommandsInOrder
from ontopic.commands.options import ROOT
from ontopic.commands.status import status
from ontopic.commands.ui import ui
from ontopic.config.network import reach_this_machine_directly
from ontopic.visible import visible
from pipelines import commands as pipelines_commands
from serving import commands as serving_commands

app = typer.Typer(
    cls=CommandsInOrder,
    add_completion=True,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback(invoke_without_command=True)(pipelines_commands.loop)
for command in (
    demo,
    ui,
    serving_commands.ask,
    models.evaluate,
    judges.judge,
    judges.calibrate,
    labels.label,
    serving_commands.serve,
    pipelines_commands.watch,
    status,
    approvals.approve,
    approvals.reject,
    models.promote,
    models.rollback,
    models.delete,
    export,
):
    app.command()(command)
app.add_typer(policy.app, name="policy")
app.add_typer(traffic.app, name="traffic")
app.add_typer(alerts.app, name="alerts")
app.add_typer(preferences.app, name="preferences")
app.add_typer(record.app, name="record")
app.add_typer(state.app, name="state")
app.add_typer(serving_commands.keys, name="keys")


def main() -> None:
    """Run the command line; a user's mistake is one sentence and exit code 1."""
    code = 0
    try:
        shell.take_over(ROOT / ".env")
        reach_this_machine_directly()
        logging.getLogger("alembic").setLevel(logging.WARNING)
        try:
            app()
        finally:
            shell.flush()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if code == 130:  # what typer makes of Ctrl-C
            shell.say_stopped(ended)
    except Exception as error:
        mistakes = mistakes_behind(error)
        if mistakes is None:
            raise
        for mistake in mistakes:
            print(f"error: {visible(mistake)}", file=sys.stderr)
        code = 1
    sys.exit(shell.exit_code(code))


if __name__ == "__main__":
    main()
