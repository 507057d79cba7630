"""The list of commands in ``--help``."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

import run


@pytest.mark.parametrize("group", [[], ["policy"], ["traffic"], ["alerts"], ["keys"]])
@pytest.mark.parametrize("width", ["60", "80", "200"])
def test_every_command_is_listed_with_its_whole_description(
    group: list[str], width: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    said = CliRunner().invoke(run.app, [*group, "--help"]).output
    assert "..." not in said.partition("ARGS]...")[2]
    command = typer.main.get_command(run.app)
    for name in group:
        command = command.commands[name]  # type: ignore[attr-defined]
    flat = " ".join(said.split()).replace("- ", "-")  # a word may be broken at its hyphen
    for name, each in command.commands.items():  # type: ignore[attr-defined]
        first = " ".join(each.help.split()).split(". ")[0].rstrip(".")
        assert f" {name} {first}" in flat, name


def test_the_commands_stand_in_the_order_of_work() -> None:
    said = CliRunner().invoke(run.app, ["--help"]).output
    places = [said.index(f"\n  {name} ") for name in ("calibrate", "label", "serve", "watch", "promote")]
    assert places == sorted(places)
    assert "Others" not in said  # none was forgotten
