"""OnTopic's command line. `python run.py` runs the whole loop; `python run.py --help` lists the commands."""

from __future__ import annotations

import logging
import sys
import warnings

try:
    import typer
except ModuleNotFoundError:
    sys.exit("error: this Python lacks what OnTopic needs; run `make setup`, then `source .venv/bin/activate`")
from dotenv import load_dotenv

from ontopic.commands import alerts, judges, labels, models, traffic
from ontopic.commands.listing import CommandsInOrder
from ontopic.commands.options import ROOT, user_error_behind
from ontopic.commands.status import status
from ontopic.commands.ui import ui
from ontopic.config.network import reach_this_machine_directly
from pipelines import commands as pipelines_commands
from serving import commands as serving_commands

app = typer.Typer(
    cls=CommandsInOrder,
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.callback(invoke_without_command=True)(pipelines_commands.loop)
for command in (
    ui,
    serving_commands.ask,
    models.evaluate,
    judges.judge,
    judges.calibrate,
    labels.label,
    serving_commands.serve,
    pipelines_commands.watch,
    status,
    models.promote,
    models.rollback,
):
    app.command()(command)
app.add_typer(traffic.app, name="traffic")
app.add_typer(alerts.app, name="alerts")
app.add_typer(serving_commands.keys, name="keys")


def main() -> None:
    """Run the command line; a user's mistake is one sentence and exit code 1."""
    load_dotenv(ROOT / ".env")
    reach_this_machine_directly()
    # Libraries warn of what is theirs to mend; ours are errors.
    warnings.filterwarnings("ignore")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        app()
    except Exception as error:
        mistake = user_error_behind(error)
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
