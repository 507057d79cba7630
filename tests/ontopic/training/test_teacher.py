"""The teacher, asked over real HTTP on the loopback interface."""

from __future__ import annotations

import logging

import pytest
from loopback import ChatServer, Reply

from ontopic.config.policy import Policy
from ontopic.config.settings import TeacherSettings
from ontopic.errors import UserError
from ontopic.records import Record, Verdict
from ontopic.training import teacher

SETTINGS = TeacherSettings(model="teacher-model", concurrency=4)


def of(server: ChatServer) -> TeacherSettings:
    return SETTINGS.model_copy(update={"base_url": server.url, "max_retries": 1})


def judged(*scopes: bool | None) -> tuple[list[Record], list[Verdict]]:
    """Questions numbered from 0 with a verdict on their scope."""
    records = [Record(question=f"question {i}", answer="answer") for i in range(len(scopes))]
    return records, [
        Verdict(outcome="pass", score=1.0, explanation="", judge_id="judge", in_scope=in_scope) for in_scope in scopes
    ]


def test_questions_in_scope_get_an_answer_and_others_are_not_asked(chat_server: ChatServer, banking: Policy) -> None:
    chat_server.reply = lambda request: Reply(f"  answer to {request['messages'][-1]['content']}\n")
    found = teacher.answers(*judged(True, False, None, True), policy=banking, settings=of(chat_server))
    assert found == {"question 0": "answer to question 0", "question 3": "answer to question 3"}
    assert sorted(chat_server.prompts()) == ["question 0", "question 3"]
    system, user = chat_server.requests[0]["messages"]
    assert (system["role"], user["role"]) == ("system", "user")
    assert banking.definition in system["content"]
    assert chat_server.requests[0]["model"] == "teacher-model"


def test_a_question_asked_twice_is_answered_once(chat_server: ChatServer, banking: Policy) -> None:
    chat_server.reply = lambda request: Reply("yes")
    records, verdicts = judged(True)
    assert teacher.answers(records * 3, verdicts * 3, policy=banking, settings=of(chat_server)) == {"question 0": "yes"}
    assert len(chat_server.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=500, headers={"Retry-After": "0.01"}),
        Reply(status=400),
        Reply(" "),
        Reply(None),
        Reply(body=b'{"choices": []}'),
        Reply(body=b"<html>Log in first</html>", content_type="text/html"),
        Reply(body=b"not json"),
    ],
    ids=["500", "400", "blank", "null", "no choice", "html", "broken"],
)
def test_a_question_that_gets_no_answer_is_left_out_and_counted(
    chat_server: ChatServer, banking: Policy, reply: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    chat_server.reply = lambda request: reply if request["messages"][-1]["content"] == "question 1" else Reply("yes")
    with caplog.at_level(logging.WARNING, logger="ontopic.training.teacher"):
        found = teacher.answers(*judged(True, True, True), policy=banking, settings=of(chat_server))
    assert found == {"question 0": "yes", "question 2": "yes"}
    assert "1 of 3 questions without an answer (" in caplog.text


def test_a_busy_server_is_asked_again(chat_server: ChatServer, banking: Policy) -> None:
    chat_server.reply = lambda request: (
        Reply(status=429, headers={"Retry-After": "0.05"}) if len(chat_server.requests) == 1 else Reply("yes")
    )
    assert teacher.answers(*judged(True), policy=banking, settings=of(chat_server)) == {"question 0": "yes"}


def test_braces_in_policy_and_question_stay_plain_text(chat_server: ChatServer, banking: Policy) -> None:
    chat_server.reply = lambda request: Reply("yes")
    policy = banking.model_copy(update={"definition": "Banking {subject} {0}."})
    verdict = Verdict(outcome="pass", score=1.0, explanation="", judge_id="judge", in_scope=True)
    teacher.answers(
        [Record(question="what is {subject}", answer="")], [verdict], policy=policy, settings=of(chat_server)
    )
    assert "Banking {subject} {0}." in chat_server.requests[0]["messages"][0]["content"]
    assert chat_server.prompts() == ["what is {subject}"]


def test_without_an_api_key_nothing_is_asked(banking: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY is not set"):
        teacher.answers(*judged(True), policy=banking, settings=SETTINGS)


def test_a_budget_that_is_spent_is_named(
    chat_server: ChatServer, banking: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    chat_server.reply = lambda request: Reply("yes", parts={"usage": {"prompt_tokens": 9, "completion_tokens": 1}})
    settings = of(chat_server).model_copy(update={"concurrency": 1, "budget_tokens": 20})
    with caplog.at_level(logging.WARNING, logger="ontopic.training.teacher"):
        found = teacher.answers(*judged(*[True] * 5), policy=banking, settings=settings)
    assert list(found) == ["question 0", "question 1"]
    assert "3 of 5 questions without an answer (3 not asked: the budget of 20 tokens is spent)" in caplog.text
