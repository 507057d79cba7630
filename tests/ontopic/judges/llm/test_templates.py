"""The prompts of an LLM as judge: the shipped ones, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest
from graders import PROMPTS, SHIPPED

from ontopic.errors import UserError
from ontopic.judges.llm.templates import Grading, load_template


@pytest.mark.parametrize("path", sorted(PROMPTS.glob("*.txt")), ids=lambda path: path.stem)
def test_every_shipped_prompt_loads(path: Path) -> None:
    template = load_template(path, SHIPPED[path.stem])
    assert (template.name, template.text) == (path.stem, path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("grading", "text", "said"),
    [
        (
            "single",
            "{{fence}}{{question}}{{answer}}{{fence}}{{qestion}}",
            "unknown placeholder 'qestion'; the valid ones",
        ),
        ("single", "{{fence}}{{question}}{{answer_a}}{{fence}}", "unknown placeholder 'answer_a'; the valid ones"),
        ("single", "{{fence}}{{question}}{{fence}}", "the placeholder {{answer}} is missing; add it"),
        ("single", "{{question}}{{answer}}", "the placeholder {{fence}} is missing; add it"),
        ("single", "{{fence}}{{question}}{{fence}}{{answer}}", "{{answer}} stands outside the fence; put {{fence}}"),
        ("single", "{{question}}{{fence}}{{answer}}{{fence}}", "{{question}} stands outside the fence; put {{fence}}"),
        ("custom", "{{fence}}{{question}}{{fence}}", "the placeholder {{answer}} is missing; add it"),
        ("pairwise", "{{fence}}{{question}}{{answer_a}}{{fence}}", "the placeholder {{answer_b}} is missing; add it"),
        ("reference", "{{fence}}{{question}}{{answer}}{{fence}}", "the placeholder {{reference}} is missing; add it"),
    ],
)
def test_a_wrong_placeholder_is_named_with_the_file(tmp_path: Path, grading: Grading, text: str, said: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_template(path, grading)
    assert str(caught.value).startswith(f"{path}: {said}")


def test_a_missing_or_unreadable_prompt_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.txt: the judge prompt cannot be read"):
        load_template(tmp_path / "nothing.txt", "single")
    (tmp_path / "latin.txt").write_bytes(b"\xe4")
    with pytest.raises(UserError, match=r"latin\.txt: the judge prompt cannot be read"):
        load_template(tmp_path / "latin.txt", "single")


def test_the_digest_tells_prompts_and_kinds_of_grading_apart(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("{{fence}}{{question}}{{answer}}{{fence}}")
    digests = {load_template(path, "single").digest, load_template(path, "custom").digest}
    path.write_text("{{fence}}{{question}}{{answer}}{{fence}} ")
    assert len(digests | {load_template(path, "single").digest}) == 3
