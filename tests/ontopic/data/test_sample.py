"""Samples of labelled questions: the share in scope, what is left out, what is added."""

from __future__ import annotations

from pathlib import Path

import pytest

from ontopic.data.labelled import Question
from ontopic.data.sample import Sample, draw, sample_in_words, sampled_questions
from ontopic.errors import UserError

QUESTIONS = [Question(question=f"Question {i}?", in_scope=i % 2 == 0, split="train") for i in range(40)]


def sample(n: int, *, source: str = "", skip: int = 0, seed: int = 0, more: tuple[Question, ...] = ()) -> Sample:
    return Sample(
        source=source,
        source_sha256="",
        split="train",
        n=n,
        in_scope_share=0.25,
        seed=seed,
        skip=skip,
        more=list(more),
    )


def written(folder: Path, questions: list[Question]) -> str:
    path = folder / "questions.jsonl"
    path.write_text("".join(question.model_dump_json() + "\n" for question in questions))
    return str(path)


def test_a_sample_has_the_share_in_scope_and_comes_again_with_its_seed() -> None:
    chosen = draw(QUESTIONS, sample(20))
    assert sum(question.in_scope for question in chosen) == 5 and len(set(chosen)) == 20
    assert chosen == draw(QUESTIONS, sample(20)) != draw(QUESTIONS, sample(20, seed=1))


def test_what_another_sample_of_the_seed_has_is_skipped() -> None:
    first, second = draw(QUESTIONS, sample(8)), draw(QUESTIONS, sample(8, skip=8))
    assert not set(first) & set(second)
    assert set(first) | set(second) == set(draw(QUESTIONS, sample(16)))


def test_a_scope_without_enough_questions_gives_all_it_has() -> None:
    assert sum(not question.in_scope for question in draw(QUESTIONS, sample(60))) == 20


def test_other_splits_are_not_sampled_and_new_questions_follow(tmp_path: Path) -> None:
    other = Question(question="Held out?", in_scope=True, split="evaluation")
    source = written(tmp_path, [*QUESTIONS, other])
    of_split = sampled_questions(sample(60, source=source))
    assert len(of_split) == 35 and other not in of_split  # all 20 out of scope, and a quarter of 60
    again = Question(question="question  1", in_scope=False)
    new = Question(question="What is new?", in_scope=True)
    merged = sampled_questions(sample(60, source=source, more=(again, new)))
    assert merged == [*of_split, new]


def test_a_split_with_one_scope_only_is_a_users_mistake(tmp_path: Path) -> None:
    source = written(tmp_path, QUESTIONS[::2])
    with pytest.raises(
        UserError,
        match="the train split has too few questions to ask: 20 in scope and 0 out of scope, and needs at least 1",
    ):
        sampled_questions(sample(20, source=source))


def test_the_number_that_is_said_is_the_number_that_is_asked(tmp_path: Path) -> None:
    source = written(tmp_path, QUESTIONS)
    assert sample_in_words(sample(24, source=source)) == "24 questions"
    few = sample(120, source=source)
    said = "40 questions, not 120: the train split has 20 in scope and 20 out of scope"
    assert (sample_in_words(few), len(sampled_questions(few))) == (said, 40)
    with pytest.raises(UserError, match=r"20 in scope and 20 out of scope \(80 are asked elsewhere\), and needs at"):
        sample_in_words(sample(20, source=source, skip=80))
