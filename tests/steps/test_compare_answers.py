"""The step that lets an LLM compare two models' answers, over real HTTP on the loopback interface."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import mlflow
from loopback import ROOT, ChatServer, Reply
from qualities import quality_of

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice, LLMJudgeSettings, LocalJudgeSettings
from ontopic.data.labelled import Question
from ontopic.evaluation.answers import Evaluation
from ontopic.evaluation.gate import Evaluated
from ontopic.records import Record, Verdict
from ontopic.registry.tracking import open_tracking
from ontopic.state.workspace import open_workspace
from steps.compare_answers import compare_answers

ASKED = [("Can I freeze my card?", True), ("How do I bake bread?", False), ("What is an IBAN?", True)]


def evaluation(*answers: str) -> Evaluated:
    records = [
        Record(question=question, answer=answer, in_scope=inside)
        for (question, inside), answer in zip(ASKED, answers, strict=True)
    ]
    verdicts = [
        Verdict(outcome="pass", score=1.0, explanation="", judge_id="judge-1", in_scope=r.in_scope, declined=False)
        for r in records
    ]
    questions = [Question(question=question, in_scope=inside) for question, inside in ASKED]
    evaluation = Evaluation(questions=questions, records=records, verdicts=verdicts)
    return Evaluated(evaluation=evaluation, quality=quality_of())


def test_an_llm_compares_the_answers_in_scope_in_both_orders(
    chat_server: ChatServer, banking: Policy, tmp_path: Path
) -> None:
    def prefers_the_app(request: dict[str, Any]) -> Reply:
        answers = re.findall(r"Answer ([AB]): (.*)", request["messages"][-1]["content"])
        (better,) = [name for name, text in answers if "app" in text]
        return Reply(json.dumps({"explanation": "It says where.", "verdict": better.lower()}))

    chat_server.reply = prefers_the_app
    workspace = open_workspace(tmp_path)
    open_tracking(workspace, "test")
    champion = evaluation("Yes.", "Flour.", "It is in the app.")
    challenger = evaluation("Yes, in the app.", "No.", "A number.")
    judge = LLMJudgeSettings(kind="openai", model="m", base_url=chat_server.url)
    choice = JudgeChoice(settings=judge, prompts=ROOT / "configs/judge_prompts")
    local = JudgeChoice(settings=LocalJudgeSettings(kind="local"), prompts=ROOT / "configs/judge_prompts")
    given = {"champion": champion, "challenger": challenger, "policy": banking, "workspace": workspace}
    with mlflow.start_run():
        assert compare_answers.entrypoint(judge=choice, **given) == ["a", "b"]
    assert len(chat_server.requests) == 4
    assert not any("bread" in prompt for prompt in chat_server.prompts())
    assert compare_answers.entrypoint(judge=local, **given) == []
