"""Requests packed beside what is stored already, and the records that share turns."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from ontopic.records import GuardDecision, Message, Record
from ontopic.traffic.removal import ERASED
from ontopic.traffic.store import TrafficStore
from ontopic.traffic.turns import Beside, pack, unpack

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def turn(role: str, content: str) -> Message:
    return Message.model_validate({"role": role, "content": content})


def chat(name: str, turns: int, *, prompt: str = "Be brief.") -> list[Record]:
    """The records of a conversation whose requests repeat what was said before."""
    messages, records = [turn("system", prompt)], []
    for i in range(turns):
        messages.append(turn("user", f"{name} asks {i}"))
        record = Record(question=f"{name} asks {i}", answer=f"{name} hears {i}", id=f"{name}{i}", conversation=name)
        record = record.model_copy(update={"messages": tuple(messages), "asked_at": NOON + timedelta(seconds=i)})
        records.append(record)
        messages.append(turn("assistant", record.answer))
    return records


def rows(store: TrafficStore, table: str) -> int:
    with store._engine.connect() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())  # noqa: S608


def literal(store: TrafficStore) -> set[str]:
    """The ids of the records that hold messages of their own."""
    with store._engine.connect() as connection:
        return set(connection.exec_driver_sql("SELECT id FROM traffic WHERE messages IS NOT NULL").scalars())


def test_any_request_is_unpacked_as_it_was() -> None:
    draw = Random(0)
    for _ in range(3000):
        said = [turn(draw.choice(["system", "user", "assistant", "tool"]), draw.choice("abc")) for _ in range(7)]
        messages = tuple(draw.choices(said, k=draw.randrange(9)))
        before = tuple(draw.choices(said, k=draw.randrange(6)))
        beside = Beside(draw.choice("abc"), draw.choice(["", "a"]), before)
        if messages or not (before or beside.prompt):
            assert unpack(pack(messages, beside), beside) == messages


@pytest.mark.parametrize("at_once", [True, False], ids=["together", "one by one"])
def test_what_later_requests_repeat_is_stored_once(store_at: Path | str, at_once: bool) -> None:
    records = [record for pair in zip(chat("ann", 6), chat("bob", 6), strict=True) for record in pair]
    with TrafficStore(store_at) as store:
        if at_once:
            store.add_many(records)
        else:
            for record in records:
                store.add(record)
        assert {record.id: record for record in store.records()} == {record.id: record for record in records}
        assert (literal(store), rows(store, "origin"), rows(store, "prompt")) == (set(), 2, 1)


def variants(records: list[Record]) -> Iterator[tuple[str, list[Record]]]:
    """How clients send less or more than all that was said."""
    yield "the last turns alone", [r.model_copy(update={"messages": r.messages[-4:]}) for r in records]
    context = [turn("system", f"Context {i}. " * 9) for i in range(len(records))]
    fresh = [r.model_copy(update={"messages": (c, *r.messages[1:])}) for c, r in zip(context, records, strict=True)]
    yield "another context each time", fresh
    tool = turn("tool", "It holds 42.")
    yield "a tool's turn", [r.model_copy(update={"messages": (*r.messages, tool)}) for r in records]
    yield "no system", [r.model_copy(update={"messages": r.messages[1:]}) for r in records]


@pytest.mark.parametrize(("name", "records"), variants(chat("ann", 8)), ids=lambda value: value if value else "")
def test_a_client_that_sends_another_part_shares_too(tmp_path: Path, name: str, records: list[Record]) -> None:
    with TrafficStore(tmp_path / "traffic.db") as store:
        store.add_many(records)
        assert store.records() == records
        with store._engine.connect() as connection:
            stored = "".join(connection.exec_driver_sql("SELECT coalesce(messages, '') FROM traffic").scalars())
    assert "ann asks" not in stored.replace("ann asks 0", ""), name
    assert "ann hears" not in stored


def test_what_is_left_keeps_what_it_repeats_and_no_more(store_at: Path | str) -> None:
    records = chat("ann", 5)
    with TrafficStore(store_at) as store:
        store.add_many([*records, *chat("bob", 3, prompt="Be long.")])
        assert store.prune(keep=7) == 1  # a first one
        left = store.records()
        assert [r.messages for r in left if r.conversation == "ann"] == [r.messages for r in records if r in left]
        assert store.erase(["ann2"]) == 1
        after = {record.id: [each.content for each in record.messages] for record in store.records()}
        assert after["ann1"] == [each.content for each in records[1].messages]
        assert after["ann4"][5:7] == [ERASED, ERASED]
        assert "ann asks 2" not in str(after) and "ann hears 2" not in str(after)
        for name in ("ann", "bob"):
            assert store.erase(store.ids(conversation=name)) == sum(each.startswith(name) for each in after)
        assert (rows(store, "traffic"), rows(store, "origin"), rows(store, "prompt")) == (0, 0, 0)


def test_ids_are_found_by_all_that_is_given(store_at: Path | str) -> None:
    records = [record.model_copy(update={"user": "u", "registered_model": "m"}) for record in chat("ann", 2)]
    with TrafficStore(store_at) as store:
        store.add_many([*records, *chat("bob", 2)])
        assert store.ids(user="u") == store.ids(conversation="ann", user="u") == ["ann0", "ann1"]
        assert (store.ids(record="bob1"), store.ids(record="bob1", user="u"), store.ids(user="' OR 1=1 --")) == (
            ["bob1"],
            [],
            [],
        )
    with TrafficStore(store_at, "another") as other:
        assert other.ids(user="u") == []


def test_no_part_of_a_record_is_stored_with_personal_data(store_at: Path | str) -> None:
    card, mail = "4111 1111 1111 1111", "ann@example.com"
    turns = tuple(turn(role, f"{role} {mail}") for role in ("system", "user", "assistant", "tool", "user"))
    guard = GuardDecision(mode="enforce", stage="answer", withheld=f"Your card is {card}.")
    record = Record(question=f"user {mail}", answer=card, messages=turns, metadata={"mail": mail}, guard=guard)
    with TrafficStore(store_at) as store:
        store.add(record)
        (kept,) = store.records()
    assert mail not in kept.model_dump_json() and "4111" not in kept.model_dump_json()
    assert kept.guard is not None
    assert (kept.metadata, kept.guard.withheld) == ({"mail": "[email]"}, "Your card is [card].")
    assert [each.content for each in kept.messages] == [f"{each.role} [email]" for each in turns]
    assert kept.redacted == {"card": 1, "email": 1}
