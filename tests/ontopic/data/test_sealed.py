"""The sealed set: fixed by the questions' words, and in no sample."""

from __future__ import annotations

from pathlib import Path

from loopback import ROOT

from ontopic.config.policy import load_policy
from ontopic.data.labelled import Message, Question, load_questions
from ontopic.data.same_question import normalized
from ontopic.data.sample import Sample, sampled_questions
from ontopic.data.sealed import (
    is_sealed,
    open_and_sealed,
    question_id,
    sample_sha256,
    sealed_in_words,
    sealed_questions,
)

BANKING = load_policy(ROOT / "configs/policies/banking.yaml").questions
GARDENING = load_policy(ROOT / "configs/policies/gardening.yaml").questions


def sample(n: int, *, seed: int = 0, skip: int = 0, more: tuple[Question, ...] = ()) -> Sample:
    return Sample(source=BANKING, source_sha256="", split="evaluation", n=n, seed=seed, skip=skip, more=list(more))


def words(questions: list[Question]) -> set[str]:
    return {normalized(question.question) for question in questions}


def test_no_draw_holds_a_sealed_question_whatever_its_seed_its_size_and_what_is_added() -> None:
    sealed = sealed_questions(BANKING)
    assert 180 <= len(sealed) <= 240 and {question.in_scope for question in sealed} == {True, False}
    for seed in range(20):
        assert not words(sealed) & words(sampled_questions(sample(720, seed=seed)))
    assert not words(sealed) & words(sampled_questions(sample(80, skip=720)))
    everything = sampled_questions(sample(5000, more=(*sealed, Question(question="Is this new?", in_scope=True))))
    assert not words(sealed) & words(everything)
    evaluation = load_questions(BANKING, split="evaluation")
    assert words(everything) | words(sealed) == words(evaluation) | {"is this new"}


def test_what_is_sealed_stays_so_when_questions_are_added() -> None:
    evaluation = load_questions(BANKING, split="evaluation")
    added = [Question(question=f"What of number {i}?", in_scope=i % 2 == 0, split="evaluation") for i in range(500)]
    before, after = open_and_sealed(evaluation)[1], open_and_sealed([*added, *reversed(evaluation)])[1]
    assert set(before) <= set(after)
    assert is_sealed(before[0]) and is_sealed(before[0].model_copy(update={"question": before[0].question.upper()}))


def test_of_a_small_split_none_is_sealed_and_a_sentence_says_why(tmp_path: Path) -> None:
    assert sealed_questions(GARDENING) == []
    assert sealed_in_words(GARDENING) == (
        "No question is sealed: the evaluation split has 78, and a fifth of it must be at least 100"
    )
    assert "are sealed: asked once a challenger has passed everything else" in sealed_in_words(BANKING)
    one_scope = [Question(question=f"Question {i}?", in_scope=True, split="evaluation") for i in range(900)]
    assert open_and_sealed(one_scope) == (one_scope, [])


def test_an_id_goes_by_the_words_and_what_was_said_before() -> None:
    plain = Question(question="And how much?", in_scope=True)
    told = plain.model_copy(update={"history": (Message(role="user", content="I want a loan."),)})
    assert question_id(plain) == question_id(Question(question="and how  MUCH", in_scope=False))
    assert question_id(plain) != question_id(told)
    assert sample_sha256([plain, told]) == sample_sha256([told, plain]) != sample_sha256([plain])
