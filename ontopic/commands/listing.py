"""The list of commands in ``--help``: in the order of work, each description whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typer.core import TyperGroup

_SECTIONS = {
    "Beginning": ("demo", "policy"),
    "Judges and labels": ("calibrate", "label", "judge"),
    "Serving and traffic": ("serve", "keys", "ask", "traffic", "state"),
    "Watching": ("watch", "alerts", "status", "ui"),
    "Model versions": (
        "preferences",
        "evaluate",
        "approve",
        "reject",
        "promote",
        "rollback",
        "delete",
        "export",
        "record",
    ),
}


class Commands(TyperGroup):
    """A group of commands whose list cuts no description."""

    sections: Mapping[str, Sequence[str]] = {}
    rest = "Commands"

    # Any: typer brings a click of its own under a private name.
    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands by section; those of none are last."""
        names = self.list_commands(ctx)
        placed = {name for section in self.sections.values() for name in section}
        rest = [name for name in names if name not in placed]
        width = max(map(len, names))
        for title, section in {**self.sections, self.rest: rest}.items():
            found = [(name.ljust(width), self.commands[name]) for name in section if name in self.commands]
            if found:
                with formatter.section(title):
                    formatter.write_dl([(name, each.get_short_help_str(limit=1000)) for name, each in found])


class CommandsInOrder(Commands):
    """The command line itself, whose commands are listed as work goes."""

    sections = _SECTIONS
    rest = "Others"
