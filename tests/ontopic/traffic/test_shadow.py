"""What is answered unseen: apart from the records, without personal data, and gone when its record is."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from ontopic.records import Record
from ontopic.state.erasing import Erasing
from ontopic.traffic.erasure import collect
from ontopic.traffic.shadow import ShadowAnswer
from ontopic.traffic.store import TrafficStore

NAME = "ontopic-test"


def record(record_id: str) -> Record:
    at = datetime(2026, 12, 1, tzinfo=UTC)
    return Record(question="q?", answer="a", id=record_id, model_version="1", asked_at=at, conversation="c")


def unseen(record_id: str, answer: str = "unseen", version: str = "2") -> ShadowAnswer:
    return ShadowAnswer(record_id=record_id, model_version=version, answer=answer, completion_tokens=3)


def test_it_is_kept_apart_and_goes_with_its_record(store_at: Path | str) -> None:
    with TrafficStore(store_at, NAME) as store:
        store.add_many([record("a"), record("b")])
        assert store.add_shadow(unseen("a")) and store.add_shadow(unseen("b", "mail me: ann@example.com"))
        assert store.add_shadow(unseen("a", "said again")) and store.add_shadow(unseen("a", "third", version="3"))
        assert not store.add_shadow(unseen("gone"))
        assert [each.answer for each in store.shadow(["a", "b", "gone"], "2")] == ["unseen", "mail me: [email]"]
        assert store.count() == 2 and {each.answer for each in store.stream()} == {"a"}
        assert store.erase(["a"]) == 1
        assert [each.record_id for each in store.shadow(["a", "b"])] == ["b"]
        assert not store.add_shadow(unseen("a"))  # one that was being generated when it was erased


@pytest.mark.parametrize("text", ["a long answer that nobody has seen before anywhere"])
def test_what_was_said_in_it_is_erased_elsewhere_too(tmp_path: Path, text: str) -> None:
    with TrafficStore(tmp_path / "traffic.db", NAME) as store, Erasing(tmp_path / "order.db") as erasing:
        store.add(record("a"))
        store.add_shadow(unseen("a", text))
        collect(store, [["a"]], erasing=erasing)
        assert erasing.n() == 1
        assert erasing.has_text(f"<p>{text}</p>")
