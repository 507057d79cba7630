"""What is exported and imported again: every field, in every format."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, get_args

import pytest

from ontopic.records import GuardDecision, Message, Parameters, Record
from ontopic.traffic.files import Format, Imported, export_traffic, import_traffic
from ontopic.traffic.store import TrafficStore

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
HOSTILE = "'); DROP TABLE traffic; --\n<script>\u2028\"\\ €, \u202e =1+1 [card]"
FORMATS: tuple[Format, ...] = get_args(Format)


def drawn(n: int) -> Iterator[Record]:
    """Records with any of their fields there or not, and any of the values that each can have."""
    draw = Random(0)
    texts = ("", "q", HOSTILE, "\t", "x" * 300, "é" * 40, "[1]", '{"a": 1}', "null", "0")

    def text() -> str:
        return draw.choice(texts)

    def maybe(value: Any, default: Any) -> Any:
        return value if draw.random() < 0.6 else default

    for i in range(n):
        question = text()
        roles = draw.choices(["system", "user", "assistant", "tool"], k=draw.randrange(5))
        turns = [Message(role=role, content=text()) for role in roles]  # type: ignore[arg-type]
        turns += maybe([Message(role="user", content=question)], [])
        scores = {"scope_score": maybe(draw.random(), None), "answer_score": maybe(0.0, None)}
        stage = draw.choice(["", "question", "answer"])
        guard = {"mode": draw.choice(["observe", "enforce"]), "stage": stage, "judge_id": maybe("j", "")}
        guard |= {"withheld": maybe(text(), ""), "failure": maybe("too slow", ""), **scores}
        sampling = {"temperature": maybe(1.5, 0.0), "top_p": maybe(0.25, 1.0), "seed": maybe(2**63 - 1, None)}
        sampling |= {"max_tokens": draw.randrange(1, 99), "stop": maybe(("\n", "€"), ())}
        yield Record(
            question=question,
            answer=text(),
            in_scope=draw.choice([None, True, False]),
            id=f"drawn {i}",
            registered_model=maybe("ontopic-banking", ""),
            model_version=maybe("7", ""),
            asked_at=NOON + timedelta(microseconds=i),
            latency_s=maybe(draw.random(), 0.0),
            prompt_tokens=maybe(3, 0),
            completion_tokens=maybe(2**31 - 1, 0),
            finished=maybe(False, True),
            redacted=maybe({"card": 2, "phone": 1}, {}),
            messages=maybe(tuple(turns), ()),
            parameters=maybe(Parameters.model_validate(sampling), None),
            conversation=maybe(f"c{i % 7}", ""),
            user=maybe("u" * 32, ""),
            metadata=maybe({"a": text(), "ontopic": "x", "conversation_id": "y", "": ""}, {}),
            key=maybe("website", ""),
            guard=maybe(GuardDecision.model_validate(guard), None),
            rollout=maybe("5 %", ""),
        )


@pytest.mark.parametrize("to", FORMATS)
def test_no_field_is_lost_in_any_format(tmp_path: Path, to: Format) -> None:
    records = list(drawn(300))
    assert set(Record.model_fields) == {name for record in records for name in record.model_fields_set}
    out = tmp_path / f"out.{'parquet' if to == 'parquet' else 'jsonl'}"
    with TrafficStore(tmp_path / "one.db") as store:
        store.add_many(records)
        assert list(store.stream()) == records
        export_traffic(store, out, to=to)
    with TrafficStore(tmp_path / "other.db") as other:
        assert import_traffic(out, other) == Imported(300, 0, 0)
        for kept, record in zip(other.stream(), records, strict=True):
            assert kept == record
