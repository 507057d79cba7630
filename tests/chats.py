"""Chats with the same last sentence, on banking and on other things, and an LLM that goes by what it follows."""

from __future__ import annotations

import json
import re
from typing import Any

from loopback import ROOT, ChatServer, Reply

from ontopic.config.settings import JudgeChoice, LLMJudgeSettings
from ontopic.records import Message, Record

LAST = "And how long does that take?"
SYSTEM = Message(role="system", content="You are the assistant of a bank. Today is a Friday.")


def chat(subject: str, **more: Any) -> Record:
    """A record whose question is the same whatever the chat is about."""
    turns = [("user", f"How do I {subject}?"), ("assistant", f"To {subject}, do as follows."), ("user", LAST)]
    messages = (SYSTEM, *(Message.model_validate({"role": role, "content": text}) for role, text in turns))
    return Record(**{"question": LAST, "messages": messages} | more)


def bank_chat(**more: Any) -> Record:
    return chat("send a bank transfer abroad", **{"answer": "Two working days."} | more)


def cake_chat(**more: Any) -> Record:
    return chat("bake a chocolate cake", **{"answer": "Forty minutes."} | more)


def judges_by_transcript(server: ChatServer) -> None:
    """Let a server judge by what the transcript before the marked question says, of a bank or of something else, and
    teach by what was asked before."""

    def reply(request: dict[str, Any]) -> Reply:
        if request["messages"][0]["role"] == "system":
            return Reply(f"Taught of: {request['messages'][1]['content']}")
        prompt = request["messages"][-1]["content"]
        before, marked, rest = prompt.partition("User (the question):\n")
        assert marked and rest.startswith(f"| {LAST}\n")
        last_user = re.findall(r"User:\n\| (.*)\n", before)[-1]
        in_scope = "bank" in last_user
        declined = "I can only help" in rest
        verdict = "pass" if in_scope != declined else "fail"
        grade = {"explanation": last_user, "in_scope": in_scope, "declined": declined, "verdict": verdict}
        return Reply(json.dumps(grade))

    server.reply = reply


def llm_judge(server: ChatServer) -> JudgeChoice:
    """The choice of an LLM at a server, by the shipped rubric."""
    settings = LLMJudgeSettings(kind="openai", model="m", base_url=server.url, template="rubric")
    return JudgeChoice(settings=settings, prompts=ROOT / "configs" / "judge_prompts")
