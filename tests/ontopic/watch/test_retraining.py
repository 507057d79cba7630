"""What a retraining learns from, and what is held out of it."""

from __future__ import annotations

from chats import LAST, chat
from word_judge import WordJudge

from ontopic.data.held_out import is_held_out
from ontopic.data.same_question import normalized
from ontopic.records import Judged, Record, Verdict
from ontopic.watch.retraining import split


def judged(*questions: str) -> Judged:
    records = [Record(question=question, answer="good", id=str(i)) for i, question in enumerate(questions)]
    return Judged(records=records, verdicts=WordJudge().judge(records))


def held_out_question(words: str) -> str:
    return next(q for i in range(99) if is_held_out(Record(question=(q := f"{words} {i}"), answer="")))


def test_no_question_is_both_trained_on_and_held_out() -> None:
    questions = [f"how do I open account {i}" for i in range(90)]
    # The same words are the same question, however they are written.
    train, held_out = split(judged(*questions, *(f"  {question.upper()} " for question in questions)), 1000)
    trained, kept = {normalized(r.question) for r in train.records}, [normalized(q.question) for q in held_out]
    assert len(set(kept)) == len(kept)
    assert trained & set(kept) == set()
    assert trained | set(kept) == set(map(normalized, questions))
    assert 20 <= len(kept) <= 40
    assert [verdict.explanation for verdict in train.verdicts] == ["good"] * len(train.records)


def test_only_the_newest_records_are_looked_at() -> None:
    questions = [f"question {i}" for i in range(30)]
    train, held_out = split(judged(*questions), 10)
    seen = {record.question for record in train.records} | {question.question for question in held_out}
    assert seen == set(questions[-10:])


def test_a_question_that_cannot_be_asked_again_is_not_held_out() -> None:
    odd, fine = held_out_question("x" * 20_000), held_out_question("question")
    _, held_out = split(judged(odd, fine, *[" \n"] * 2), 10)
    assert [question.question for question in held_out] == [fine]


def test_a_question_whose_scope_is_not_known_is_not_held_out() -> None:
    fine = held_out_question("question")
    unknown = Verdict(outcome="unjudged", score=None, explanation="", judge_id="words", cause="no word")
    traffic = Judged(records=[Record(question=fine, answer="?")], verdicts=[unknown])
    assert split(traffic, 10) == (Judged(records=[], verdicts=[]), [])


def test_each_question_is_held_out_in_its_own_conversation_and_no_turn_of_one_is_trained_on() -> None:
    records = []
    for i in range(30):
        last = chat(f"do the thing {i}", answer="good", id=f"{i}")
        first = Record(question=last.messages[1].content, answer="good", id=f"{i} first", messages=last.messages[:2])
        records += [first, last]
    train, held_out = split(Judged(records=records, verdicts=WordJudge().judge(records)), 1000)
    trained = {record.messages[1].content for record in train.records}
    kept = {question.history[1].content for question in held_out if question.question == LAST}
    assert len(kept) * 2 == len(held_out)
    assert len(trained) + len(kept) == 30
    assert trained.isdisjoint(kept)
    assert all(message.role == "system" for message in [question.history[0] for question in held_out])
