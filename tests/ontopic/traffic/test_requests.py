"""The request around a question: what files say of it, and what is stored of it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from ontopic.errors import UserError
from ontopic.records import Message, Parameters, Record
from ontopic.traffic.files import import_traffic
from ontopic.traffic.store import TrafficStore


def imported(path: Path, *rows: Any) -> list[Record]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with TrafficStore(path.with_suffix(".db")) as store:
        import_traffic(path, store)
        return store.records()


def test_of_a_request_what_others_write_is_read_as_far_as_it_is_one(tmp_path: Path) -> None:
    said = {"question": "q", "answer": "a"}
    turns = [{"role": "developer", "content": [{"type": "text", "text": "s"}]}, {"role": "user", "content": "q"}]
    answered, tool = {"role": "assistant", "content": "a"}, {"role": "tool", "content": "42"}
    of_others = {"messages": "many", "parameters": {"top_k": 3}, "conversation": ["c"]}
    records = imported(
        tmp_path / "rows.jsonl",
        {"messages": [*turns, answered], "id": 1},
        {"messages": [turns[1]], "response": "a", "id": 2},
        {"messages": [*turns, tool, answered], "id": 3},
        said | of_others | {"id": 4},
        said | {"messages": turns, "parameters": {"max_tokens": 3, "seed": None}, "conversation": "c", "id": 5},
    )
    by_id = {int(record.id): record for record in records}
    whole = (Message(role="system", content="s"), Message(role="user", content="q"))
    with_tool = (*whole, Message(role="tool", content="42"))
    assert [by_id[i].messages for i in range(1, 6)] == [whole, (), with_tool, (), whole]
    assert [by_id[i].question for i in range(1, 6)] == ["q"] * 5
    assert (by_id[4].parameters, by_id[4].conversation) == (None, "")
    assert (by_id[5].parameters, by_id[5].conversation) == (Parameters(max_tokens=3), "c")
    with pytest.raises(UserError, match=r"bad.jsonl:1: field 'parameters"):
        imported(tmp_path / "bad.jsonl", said | {"parameters": {"max_tokens": 0}})


def test_no_turn_of_a_conversation_is_stored_with_personal_data(store_at: Path | str, tmp_path: Path) -> None:
    turns = [("system", "Call +44 20 7946 0018."), ("user", "I am a@b.de"), ("assistant", "a@b.de?"), ("user", "Yes")]
    messages = tuple(Message.model_validate({"role": role, "content": content}) for role, content in turns)
    record = Record(question="Yes", answer="Fine.", id="1", messages=messages, parameters=Parameters(max_tokens=3))
    with TrafficStore(store_at) as store:
        store.add(record)
        (kept,) = store.records()
    assert [m.content for m in kept.messages] == ["Call [phone].", "I am [email]", "[email]?", "Yes"]
    assert kept.redacted == {}  # counted with the records of those turns
    assert kept.parameters == record.parameters
    with TrafficStore(tmp_path / "plain.db", redacted=False) as store:
        store.add(record)
        assert store.records()[0].messages == messages


def test_a_text_that_no_database_takes_is_refused_in_every_turn(store_at: Path | str) -> None:
    torn = (Message(role="system", content="\ud800"), Message(role="user", content="q"))
    with TrafficStore(store_at) as store:
        with pytest.raises(UnicodeEncodeError):
            store.add(Record(question="q", answer="a", messages=torn))
        nul = (Message(role="system", content="a\0b"), Message(role="user", content="q"))
        store.add(Record(question="q", answer="a", messages=nul))
        assert store.records()[0].messages == nul


def test_records_that_know_the_question_alone_take_no_more_room(tmp_path: Path) -> None:
    with TrafficStore(tmp_path / "traffic.db") as store:
        store.add(Record(question="q", answer="a"))
    with sqlite3.connect(tmp_path / "traffic.db") as connection:
        row = connection.execute("SELECT messages, origin, parent, guard FROM traffic").fetchone()
    assert row == (None, None, None, None)
