"""The commands ``evaluate``, ``promote``, ``rollback``, and what ``status`` says of a champion."""

from __future__ import annotations

from pathlib import Path

import pytest
from loopback import ROOT
from typer.testing import CliRunner, Result

from ontopic.errors import UserError
from ontopic.registry.promotions import open_registry
from ontopic.state.workspace import open_workspace


def called(state: Path, *arguments: str) -> Result:
    import run

    return CliRunner().invoke(run.app, [*arguments, "--state", str(state)])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("promote", "9", "--why", "better"), "'ontopic-banking' has no version or alias '9'; its versions are: 1, 2"),
        (("promote", "x", "--why", "better"), "'ontopic-banking' has no version or alias 'x'; its versions are: 1, 2"),
        (("promote", "1", "--why", "better"), "version 1 of 'ontopic-banking' is the champion already"),
        (("promote", "champion", "--why", "better"), "version 1 of 'ontopic-banking' is the champion already"),
        (("promote", "2", "--why", " \n"), "--why is empty; give the reason, for whoever asks later"),
        (("promote", "2", "--why", "a", "--by", ""), "--by is empty; give a name, or leave it out"),
        (("rollback", "--why", "a", "--by", "  "), "--by is empty; give a name, or leave it out"),
        (("rollback", "--why", "a"), "there was no champion before version 1 of 'ontopic-banking'"),
        (
            ("promote", "2", "--why", "a", "--config", str(ROOT / "configs" / "gardening.yaml")),
            "'ontopic-gardening' has no version or alias '2'; its versions are: none; run",
        ),
        (
            ("rollback", "--why", "a", "--config", str(ROOT / "configs" / "gardening.yaml")),
            "'ontopic-gardening' has no champion yet; run",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_moves_nothing(state_before: Path, arguments: tuple[str, ...], said: str) -> None:
    registry = open_registry(open_workspace(state_before), "ontopic-banking")
    before = registry.promotions()
    done = called(state_before, *arguments)
    assert isinstance(done.exception, UserError), (done.exception, done.output)
    assert str(done.exception).startswith(said)
    assert "\n" not in str(done.exception)
    assert (registry.champion(), registry.promotions()) == ("1", before)


def test_who_and_why_may_hold_any_bytes(state_before: Path) -> None:
    done = called(state_before, "promote", "2", "--why", "besser f\udcfcr alle", "--by", "J\udcfcrgen")
    assert done.exit_code == 0, done.exception
    last = open_registry(open_workspace(state_before), "ontopic-banking").promotions()[-1]
    assert (last.by, last.why) == ("J?rgen", "besser f?r alle")


def test_the_status_says_how_good_the_champion_was_in_its_gate(state_before: Path) -> None:
    said = " ".join(called(state_before, "status").output.split())
    assert "no gate has measured it; the windows show what it does" in said
    assert called(state_before, "promote", "2", "--why", "better").exit_code == 0
    said = " ".join(called(state_before, "status").output.split())
    assert "guardrail score 0.900 [0.870, 0.930] (n=450) in its gate against version 1" in said
