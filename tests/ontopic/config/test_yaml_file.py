"""YAML files: what cannot be read, and that every mistake is named at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from ontopic.config.settings import load_settings
from ontopic.config.yaml_file import read_yaml
from ontopic.errors import UserError


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")
    questions: int = 1


class Schema(BaseModel):
    model_config = ConfigDict(extra="forbid")
    policy: str
    model: Section = Section()


def message(folder: Path, content: str | bytes) -> str:
    """What is said of a wrong file, without its name, which each message starts with."""
    path = folder / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        read_yaml(path, Schema)
    assert str(caught.value).startswith(str(path))
    return str(caught.value).removeprefix(str(path))


def test_a_file_is_read_as_its_schema(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("policy: é\nmodel: {questions: 3}\n", encoding="utf-8")
    assert read_yaml(tmp_path / "mine.yaml", Schema) == Schema(policy="é", model=Section(questions=3))


def test_every_mistake_in_a_file_is_named_at_once(tmp_path: Path) -> None:
    said = message(tmp_path, "policy: a\nmodle: 1\nmodel: {questions: many}\n")
    assert "'modle'" in said
    assert "'model.questions' is wrong" in said


def test_broken_yaml_is_named_by_its_line(tmp_path: Path) -> None:
    assert message(tmp_path, "policy: a\nmodel: [1, 2\njudge: b\n").startswith(":3: is not valid YAML (")


@pytest.mark.parametrize(
    "content",
    ["model: 2024-13-45", "model: " + "9" * 5000, "[" * 1500, "model: \x01", "a: b: c"],
    ids=["date", "number", "nesting", "control character", "colons"],
)
def test_yaml_that_cannot_be_read_is_a_user_error(tmp_path: Path, content: str) -> None:
    assert "is not valid YAML (" in message(tmp_path, content)


@pytest.mark.parametrize("content", ["", "- a\n", "text\n"])
def test_a_file_without_keys_is_told_which_ones_it_needs(tmp_path: Path, content: str) -> None:
    assert message(tmp_path, content).startswith(": must hold keys and values; the valid keys are policy, ")


def test_a_file_that_is_missing_or_not_utf8_is_named(tmp_path: Path) -> None:
    assert "cannot be read" in message(tmp_path, b"policy: caf\xe9")
    with pytest.raises(UserError, match=r"nothing\.yaml: cannot be read"):
        load_settings(tmp_path / "nothing.yaml")
