"""Best of n: the judge's favourite of the answers that were sampled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ontopic.data.same_question import normalized
from ontopic.endpoint.account import Account
from ontopic.models.generation import generate
from ontopic.models.loading import LanguageModel, load
from ontopic.progress import Advance
from ontopic.records import Record, Verdict
from ontopic.training.best_of_n import best_answers

RECORDS = [
    Record(question="Hi there", answer="A word and another word.", finished=True),
    Record(question="Name a fruit in one word.", answer="x", finished=False),
]


class Longest:
    """Passes what has more than three words, and likes the longer one better."""

    id, account = "longest", Account()

    def judge(self, records: Sequence[Record], advance: Advance | None = None) -> list[Verdict]:
        self.seen = list(records)
        return [
            Verdict(
                outcome="pass" if words > 3 else "fail",
                score=min(1.0, words / 100),
                explanation="",
                judge_id=self.id,
                in_scope=record.in_scope,
                declined=False,
            )
            for record in records
            for words in [len(record.answer.split())]
        ]


@pytest.fixture(scope="module")
def model(model_folder: Path) -> LanguageModel:
    return load(model_folder, "float32")


@pytest.mark.slow
def test_the_judges_favourite_of_whole_answers_is_taken(model: LanguageModel) -> None:
    judge = Longest()
    best = best_answers(model, judge, records=RECORDS, n=6, max_new_tokens=40, batch_size=8, seed=1)
    assert all(record.finished and record.in_scope for record in judge.seen)
    for record in RECORDS:
        candidates = [seen.answer for seen in judge.seen if seen.question == record.question]
        good = [answer for answer in candidates if len(answer.split()) > 3]
        assert (record.answer in candidates) is record.finished  # the one that was given takes part
        assert best.get(normalized(record.question)) == (
            max(good, key=lambda answer: len(answer.split())) if good else None
        )
    assert best == best_answers(model, Longest(), records=RECORDS, n=6, max_new_tokens=40, batch_size=8, seed=1)


def test_one_answer_is_the_one_that_was_given(model: LanguageModel) -> None:
    assert best_answers(model, Longest(), records=RECORDS, n=1, max_new_tokens=40, batch_size=8, seed=0) == {
        normalized(RECORDS[0].question): RECORDS[0].answer
    }


def test_sampled_answers_differ_and_come_again_with_the_same_seed(model: LanguageModel) -> None:
    asked = [[{"role": "user", "content": "Tell me something about the sea."}]] * 4
    sampled = [
        [a.text for a in generate(model, asked, max_new_tokens=12, temperature=0.7, seed=seed)] for seed in (0, 0, 100)
    ]
    assert sampled[0] == sampled[1] != sampled[2]
    assert len(set(sampled[0])) > 1
    assert len({a.text for a in generate(model, asked, max_new_tokens=12)}) == 1
