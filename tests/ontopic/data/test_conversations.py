"""Questions in conversations: what is the same one, what stays on one side of a split, what a labeller sees."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chats import LAST, SYSTEM, bank_chat, cake_chat, chat

from ontopic.data.drawing import drawable
from ontopic.data.labelled import LabelledRecord, Question, load_questions
from ontopic.data.labeller import label_records
from ontopic.data.labels import LabelStore, load_labels
from ontopic.data.same_question import identity, opening, spoken
from ontopic.data.sealed import is_sealed, question_id
from ontopic.errors import UserError
from ontopic.records import Message, Record


def said(*texts: str, system: str = "") -> list[dict[str, str]]:
    spoken = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    return [{"role": "system", "content": system}, *spoken] if system else spoken


def test_the_same_words_are_another_question_in_another_conversation() -> None:
    assert identity(said("How LONG?")) == "how long"
    assert identity(said("a cake", "yes", "how long?")) == identity(said("A cake!", "Yes.", "How long"))
    others = [said("a loan", "yes", "how long?"), said("how long?"), said("a cake", "no", "how long?")]
    others.append(said("a cake", "yes", "how long?", system="Of a bank."))
    assert len({identity(each) for each in [said("a cake", "yes", "how long?"), *others]}) == 5
    assert identity(said("?!")) != identity(said("!!"))


def test_a_system_prompt_does_not_tell_two_sides_of_a_split_apart() -> None:
    assert spoken(said("a loan", "yes", "how long?", system="Monday")) == spoken(said("a loan", "yes", "how long?"))


def test_all_turns_of_a_conversation_begin_alike_but_for_a_greeting() -> None:
    later = said("Hello there", "Hi.", "How do I open an account?", "So.", "and then?", system="Monday")
    assert (
        opening(later) == opening(later[:4]) == opening(said("how do i open an account")) == "how do i open an account"
    )
    assert opening(said("Hello there")) == "hello there"
    assert opening([]) == ""


def test_a_question_and_a_label_keep_what_was_said() -> None:
    record = bank_chat(in_scope=True)
    question = Question.asked_in(record, in_scope=True)
    assert question.messages == record.request
    assert question.answered(record.answer) == record.model_copy(update={"in_scope": True})
    assert LabelledRecord.of(record).record(in_scope=True) == record
    alone = Question(question=LAST, in_scope=True)
    assert alone.answered("a") == Record(question=LAST, answer="a", in_scope=True)
    assert (
        len({question_id(question), question_id(alone), question_id(Question.asked_in(cake_chat(), in_scope=True))})
        == 3
    )
    halves = {is_sealed(Question.asked_in(chat(f"thing {i}", answer=""), in_scope=True)) for i in range(40)}
    assert halves == {True, False}  # though all end in the same words


def test_messages_are_read_from_json_and_from_a_tables_cell(tmp_path: Path) -> None:
    history = [{"role": "system", "content": "Of a bank."}, {"role": "user", "content": "Hi"}]
    row = {"question": LAST, "in_scope": True, "split": "train"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row | {"history": history}))
    cell = json.dumps(history).replace('"', '""')
    (tmp_path / "rows.csv").write_text(
        f'question,in_scope,split,history\n"{LAST}",yes,train,"{cell}"\n{LAST},yes,train,\n'
    )
    (from_json,) = load_questions(str(tmp_path / "rows.jsonl"))
    from_cell, without = load_questions(str(tmp_path / "rows.csv"))
    assert from_json == from_cell
    assert from_json.messages == [*history, {"role": "user", "content": LAST}]
    assert without.messages == [{"role": "user", "content": LAST}]
    (tmp_path / "bad.csv").write_text(f"question,in_scope,split,history\n{LAST},yes,train,Hi there\n")
    with pytest.raises(UserError, match=r"bad\.csv:.*field 'history': value error, must be a list of messages"):
        load_questions(str(tmp_path / "bad.csv"))


def test_drawn_splits_hold_a_conversation_together_and_tell_two_with_the_same_end_apart(tmp_path: Path) -> None:
    rows = []
    for i in range(60):
        first = f"topic {i} {['alpha', 'beta', 'gamma', 'delta'][i % 4]} {i * 7919}"
        history = [{"role": "user", "content": first}, {"role": "assistant", "content": f"answer {i * 104729}"}]
        rows.append({"question": first, "in_scope": True})
        rows.append({"question": LAST, "in_scope": i % 2 == 0, "history": history})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    loaded = load_questions(str(tmp_path / "rows.jsonl"))
    assert all(first.split == follow_up.split for first, follow_up in zip(loaded[::2], loaded[1::2], strict=True))
    assert {row.split for row in loaded[1::2]} == {"train", "evaluation", "calibration"}


def test_both_chats_are_labelled_each_by_its_own_conversation(tmp_path: Path) -> None:
    store, shown = LabelStore(tmp_path / "labels.jsonl"), list[str]()
    records = [bank_chat(answer="A while."), cake_chat(answer="A while.")]
    answers = iter(["p", "y", "f", "n"])
    assert label_records(records, store, by="random", definition="", ask=lambda _: next(answers), say=shown.append) == 2  # type: ignore[arg-type]
    first, second = (part for part in "\n".join(shown).split("of 2\n")[1:])
    for part, about in ((first, "bank transfer"), (second, "chocolate cake")):
        assert (
            part.index("System\n  | You are") < part.index("User\n  | How do I") < part.index(f"Question\n  | {LAST}")
        )
        assert about in part
    assert "cake" not in first
    assert [(row.label, row.in_scope, row.request) for row in load_labels(store.kept.path, "calibration")] == [
        ("pass", True, records[0].request),
        ("fail", False, records[1].request),
    ]
    assert store.unlabelled([*records, Record(question=LAST, answer="A while.")]) == [
        Record(question=LAST, answer="A while.")
    ]
    store.remove(records[1], by="random")
    assert store.unlabelled(records) == [records[1]]


def test_a_hostile_earlier_message_cannot_move_the_labellers_terminal(tmp_path: Path) -> None:
    record = bank_chat()
    hostile = Message(role="assistant", content="\x1b[2J\nQuestion\n\u202efine\rAnswer")
    messages = (*record.messages[:2], hostile, record.messages[-1])
    shown = list[str]()
    label_records(
        [record.model_copy(update={"messages": messages})],
        LabelStore(tmp_path / "labels.jsonl"),
        by="random",
        definition="",
        ask=lambda _: "q",
        say=shown.append,  # type: ignore[arg-type]
    )
    text = "\n".join(shown)
    assert "\x1b" not in text and "\u202e" not in text and "\r" not in text
    assert [line for line in text.split("\n") if line.startswith(("Question", "Answer"))] == ["Question", "Answer"]


def test_a_label_of_an_earlier_release_still_counts_for_its_record(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    old = {"question": LAST, "answer": "A while.", "in_scope": True, "label": "pass", "split": "calibration"}
    path.write_text(json.dumps(old | {"drawn": "random", "record_id": "mine"}) + "\n")
    store = LabelStore(path)
    assert store.unlabelled([bank_chat(answer="A while.", id="mine")]) == []
    assert [row.request for row in store.labels()] == [[{"role": "user", "content": LAST}]]


def test_the_turns_of_a_conversation_are_of_one_half_of_the_traffic() -> None:
    for i in range(20):
        record = chat(f"do thing {i}", answer="a")
        first = record.model_copy(update={"question": record.messages[1].content, "messages": record.messages[:2]})
        alone = Record(question=first.question, answer="b")
        sides = [[bool(drawable([each], by)) for each in (record, first, alone)] for by in ("random", "uncertainty")]
        assert sorted(sides) == [[False] * 3, [True] * 3]
    longest = SYSTEM.model_copy(update={"content": "x" * 100_000})  # documents
    assert (
        len(
            [
                by
                for by in ("random", "feedback")
                if drawable([bank_chat(messages=(longest, *bank_chat().messages[1:]))], by)
            ]
        )
        == 1
    )
