"""No stranger's text moves the cursor of a terminal, changes its colours or title, or turns letters around."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path

import pytest
from browser.hostile_state import hostile_state
from browser.hostile_texts import LETTERS
from typer.testing import CliRunner

import run
from ontopic.config.policy import Policy
from ontopic.errors import UserError

BAD = " ".join(LETTERS.values())
_COMMANDS = {
    "status": ["status"],
    "traffic": ["traffic"],
    "alerts": ["alerts"],
    "record": ["record"],
    "record of a version": ["record", "2"],
    "label": ["label"],
    "label by feedback": ["label", "--by", "feedback"],
}


@pytest.fixture(scope="module")
def made(banking: Policy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile_state(tmp_path_factory.mktemp("made") / "state", banking, BAD).root


@pytest.mark.parametrize("arguments", _COMMANDS.values(), ids=_COMMANDS)
def test_no_text_plays_with_the_terminal(made: Path, tmp_path: Path, arguments: list[str]) -> None:
    shutil.copytree(made, tmp_path / "state")
    done = CliRunner().invoke(run.app, [*arguments, "--state", str(tmp_path / "state")], input="s\n" * 30)
    assert done.exit_code == 0, done.output
    assert "\\x1b" in done.output or "\\u202e" in done.output, done.output
    hidden = {
        c for c in done.output if c not in "\n" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Co", "Cn")
    }
    assert not hidden, [hex(ord(c)) for c in hidden]


@pytest.mark.parametrize("name", ["out.csv", "out.TSV", "out.xlsx"])
@pytest.mark.parametrize("command", [["traffic", "export"], ["preferences", "export"]], ids=["traffic", "preferences"])
def test_nothing_is_written_that_a_spreadsheet_computes(
    made: Path, tmp_path: Path, command: list[str], name: str
) -> None:
    done = CliRunner().invoke(run.app, [*command, str(tmp_path / name), "--state", str(made)])
    assert isinstance(done.exception, UserError)
    assert "a spreadsheet would open it" in str(done.exception)
    assert not (tmp_path / name).exists()


def test_what_is_exported_is_what_was_written(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert CliRunner().invoke(run.app, ["traffic", "export", str(out), "--state", str(made)]).exit_code == 0
    lines = out.read_text(encoding="utf-8").split("\n")
    assert BAD in json.loads(lines[0])["question"]
    assert all(line.startswith("{") for line in lines[:-1])
