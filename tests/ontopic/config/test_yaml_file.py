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
    [
        *("model: 2024-13-45", "model: " + "9" * 5000, "[" * 1500, "model: \x01", "a: b: c", "a:\n\tb: 1\n", "a: \0"),
        *("policy: !!bool maybe", "policy: !!timestamp now", "policy: !!int ''", "policy: !!python/name:os.system"),
        *("policy: *nothing", "policy: 'a", "? [a]\n: b\n", "--- a\n--- b\n", "policy: a\n\0\0"),
    ],
    ids=lambda content: content[:20],
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


def test_a_key_twice_is_named_though_a_merged_one_may_be_set_anew(tmp_path: Path) -> None:
    assert message(tmp_path, "policy: a\nmodel:\n  questions: 1\n  questions: 2\n").startswith(
        ":4: is not valid YAML (the key 'questions' stands twice)"
    )
    (tmp_path / "mine.yaml").write_text("policy: &a b\nmodel:\n  <<: {questions: 1}\n  questions: 2\n")
    assert read_yaml(tmp_path / "mine.yaml", Schema).model.questions == 2


@pytest.mark.parametrize("key", ["policy", "model", "mdoel"])
def test_aliases_that_multiply_are_refused(tmp_path: Path, key: str) -> None:
    lines = ["x0: &x0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 12)]
    assert "its aliases make more than 50,000 values" in message(tmp_path, "\n".join([*lines, f"{key}: *x11"]))
    assert "its aliases make more than 50,000 values" in message(tmp_path, f"{key}: &a [*a]")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "mine.yaml").write_bytes("policy: é\n".encode(encoding))
    assert read_yaml(tmp_path / "mine.yaml", Schema).policy == "é"


def test_mistakes_come_one_a_line_and_not_without_end(tmp_path: Path) -> None:
    lines = message(tmp_path, "".join(f"key{i}: 1\n" for i in range(40))).splitlines()
    assert len(lines) == 11
    assert all(": unknown key 'key" in line or "is missing" in line for line in lines[:10])
    assert lines[10] == "and 31 more; mend these first"
    assert "is longer than 1,000,000 bytes" in message(tmp_path, "policy: " + "a" * 10_000_000)
    assert message(tmp_path, "1: 2\npolicy: a\n") == ": '1' is wrong: keys should be strings (got '1')"
