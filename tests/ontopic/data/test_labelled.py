"""Labelled questions and records: which of a file are given, and a question with its conversation."""

from __future__ import annotations

import json
from pathlib import Path

from ontopic.data.labelled import Message, Question, load_questions, load_records

ROWS = [
    {"question": "is my card blocked?", "in_scope": True, "answer": "No.", "split": "train"},
    {"question": "who wrote Hamlet, the play?", "in_scope": False, "answer": "I can't say.", "split": "evaluation"},
]


def test_one_split_alone_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for load in (load_questions, load_records):
        assert [row.question for row in load(str(path), split="evaluation")] == [ROWS[1]["question"]]
        assert load(str(path), split="calibration") == []
        assert len(load(str(path))) == 2


def test_a_questions_messages_are_its_conversation_with_the_question_last() -> None:
    before = (Message(role="user", content="Hello."), Message(role="assistant", content="Hello, how can I help?"))
    assert Question(question="Is my card blocked?", in_scope=True, history=before).messages == [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hello, how can I help?"},
        {"role": "user", "content": "Is my card blocked?"},
    ]
