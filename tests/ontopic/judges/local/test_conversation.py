"""The embedded judge in a conversation: what it reads of one, and what it makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from ontopic.config.policy import Policy
from ontopic.judges.local.conversation import turns_before
from ontopic.judges.local.judge import LocalJudge
from ontopic.models.sentence_encoder import CONTEXT_TOKENS, MAX_TOKENS, SentenceEncoder
from ontopic.records import Message, Record

OVERDRAFT = (
    Message(role="user", content="how do i set up an overdraft"),
    Message(role="assistant", content="Apply in the app under Overdraft; you'll get an answer within a day."),
)
SOUP = (
    Message(role="user", content="how do i cook a pumpkin soup"),
    Message(role="assistant", content="Roast the pumpkin, then simmer it in stock with onion and ginger."),
)


def record(before: Sequence[Message], question: str, answer: str = "It depends.") -> Record:
    return Record(question=question, answer=answer, messages=(*before, Message(role="user", content=question)))


def scores(judge: LocalJudge, records: Sequence[Record]) -> list[float]:
    found = [verdict.scope_score for verdict in judge.judge(records)]
    assert None not in found
    return [score for score in found if score is not None]


def test_the_last_turns_of_user_and_assistant_before_the_question_are_read() -> None:
    system, tool = Message(role="system", content="Talk of banking."), Message(role="tool", content="overdraft: 500")
    asked = Message(role="user", content="and how long does that take?")
    said = ("user: how do i cook a pumpkin soup", f"assistant: {SOUP[1].content}")
    assert turns_before((system, *SOUP, asked)) == said
    assert turns_before((system, *SOUP, asked, Message(role="assistant", content=""), tool)) == said
    assert turns_before((system, asked)) == turns_before(()) == ()
    assert turns_before((*OVERDRAFT, *OVERDRAFT, *SOUP, asked))[-2:] == said
    assert len(turns_before((*OVERDRAFT, *OVERDRAFT, *SOUP, asked))) == 4
    hidden = Message(role="user", content="how do i cook\u200b a pump\u043ain soup")
    assert turns_before((hidden, Message(role="assistant", content=" \u3164"), asked)) == said[:1]


def test_a_question_comes_first_then_the_newest_turns_that_fit(encoder: SentenceEncoder) -> None:
    turns = [f"{number} " * 200 for number in ("one", "two", "three", "four")]
    (alone,) = encoder.tokens(["where is it"], MAX_TOKENS)
    (read,) = encoder.tokens(["where is it"], MAX_TOKENS, contexts=[turns])
    assert read.ids[: read.own] == alone.ids and read.own == alone.own
    behind = encoder.tokenizer.decode(read.ids[read.own :])
    assert behind.count("four") > behind.count("three") * 0.9 > 0 and "two" not in behind
    assert behind.index("four") < behind.index("three")
    assert len(read.ids) - read.own <= CONTEXT_TOKENS
    (full,) = encoder.tokens(["word " * 600], MAX_TOKENS, contexts=[turns])
    assert len(full.ids) == full.own == MAX_TOKENS


def test_without_a_context_a_text_has_the_vector_that_it_always_had(encoder: SentenceEncoder) -> None:
    texts = ["is there a fee for that", "is there a fee for that", "boil an egg"]
    in_context = encoder.encode(texts, contexts=[("user: can i send money abroad",), (), ()])
    alone = encoder.encode(texts)
    assert np.array_equal(in_context[1:], alone[1:])
    assert 0.2 < in_context[0] @ alone[0] < 0.999


@pytest.mark.parametrize("question", ["and how long does that take?", "what if it goes wrong"])
def test_a_follow_up_takes_its_subject_from_what_it_follows(judge: LocalJudge, question: str) -> None:
    inside, outside = scores(judge, [record(OVERDRAFT, question), record(SOUP, question)])
    assert inside > 0.5 > outside


def test_a_change_of_subject_is_seen(judge: LocalJudge) -> None:
    away, back = scores(
        judge,
        [
            record(OVERDRAFT, "thanks. now write me a limerick about a walrus"),
            record(SOUP, "ok, other thing: my debit card was stolen, how do i block it"),
        ],
    )
    assert back > 0.5 > away


def test_in_a_long_conversation_the_last_turns_count(judge: LocalJudge) -> None:
    question = "and how long does that take?"
    inside, outside = scores(
        judge, [record((*SOUP * 40, *OVERDRAFT * 2), question), record((*OVERDRAFT * 40, *SOUP * 2), question)]
    )
    assert inside > 0.5 > outside


def test_the_answer_in_a_conversation_is_judged_by_the_scope_in_it(judge: LocalJudge, banking: Policy) -> None:
    question = "and how long does that take?"
    refused = [record(before, question, banking.refusal) for before in (OVERDRAFT, SOUP)]
    assert [verdict.outcome for verdict in judge.judge(refused)] == ["fail", "pass"]
