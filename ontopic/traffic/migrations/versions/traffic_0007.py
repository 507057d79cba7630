"""The turns of a conversation stored once; who asked, what they said of the request, and what the guard decided."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sql
from alembic import op

from ontopic.records import Message, Parameters
from ontopic.traffic.rows import short_json
from ontopic.traffic.turns import Beside, asked_before, pack, points_at_parent, prompt_of
from ontopic.traffic.writing import origins

revision = "0007"
down_revision = "0006"

_PAGE = 1000
_KEPT = 200  # earlier records of a conversation that one may follow
_NUMBER = sql.BigInteger().with_variant(sql.Integer, "sqlite")
_OLD = (
    *("id", "asked_at", "model_version", "question", "answer", "in_scope", "latency_s", "prompt_tokens"),
    *("completion_tokens", "finished", "redacted_card", "redacted_iban", "redacted_email", "redacted_phone"),
    *("stored_at", "registered_model", "parameters", "conversation", "messages"),
)
_TRAFFIC = sql.table("traffic", *map(sql.column, ("seq", "parent", "origin", *_OLD)))


def upgrade() -> None:
    """Number the records, make the tables of what they share, and move it there."""
    for name, columns in (("prompt", _prompt_columns()), ("origin", _origin_columns())):
        number = sql.Column("number", _NUMBER, sql.Identity(), primary_key=True)
        digest = sql.Column("digest", sql.LargeBinary(16), nullable=False, unique=True)
        op.create_table(name, number, digest, *columns)
    if op.get_bind().dialect.name == "sqlite":
        _make_anew()
        order = []  # its indexes end with the row's number by themselves
    else:
        op.add_column("traffic", sql.Column("seq", _NUMBER, sql.Identity(), nullable=False))
        op.create_index("traffic_by_number", "traffic", ["seq"], unique=True)
        for column in _new_columns():
            op.add_column("traffic", column)
        for index in ("traffic_by_time_of_model", "traffic_by_arrival_of_model"):
            op.drop_index(index, "traffic")
        order = ["seq"]
    for index, time in (("traffic_by_time", "asked_at"), ("traffic_by_arrival", "stored_at")):
        op.create_index(f"{index}_of_model", "traffic", ["registered_model", time, *order])
    for name in ("origin", "parent"):
        known = sql.text(f"{name} IS NOT NULL")
        op.create_index(f"traffic_by_{name}", "traffic", [name], sqlite_where=known, postgresql_where=known)
    op.create_index("traffic_by_conversation", "traffic", ["conversation", "seq"])
    _share_all()
    op.drop_index("traffic_by_conversation", "traffic")
    for name in ("conversation", "user", "prompt"):
        op.create_index(f"origin_by_{name}", "origin", [name])


def _prompt_columns() -> list[sql.Column[Any]]:
    return [sql.Column("text", sql.Text, nullable=False)]


def _origin_columns() -> list[sql.Column[Any]]:
    names = [sql.Column(name, sql.String(64), nullable=False) for name in ("conversation", "user", "key")]
    return [*names, sql.Column("parameters", sql.Text), sql.Column("metadata", sql.Text), sql.Column("prompt", _NUMBER)]


def _new_columns() -> list[sql.Column[Any]]:
    return [sql.Column("parent", _NUMBER), sql.Column("origin", _NUMBER), sql.Column("guard", sql.Text)]


def _make_anew() -> None:
    """SQLite can't number the rows of a table that is there; the old one's are in the order of time then."""
    # With defaults in the database, a process of the last release that still runs can go on writing.
    text = sql.String(200)
    kinds = ("card", "iban", "email", "phone")
    op.rename_table("traffic", "traffic_before")
    for index in ("traffic_by_time_of_model", "traffic_by_arrival_of_model"):
        op.drop_index(index, "traffic_before")
    op.create_index("traffic_before_in_order", "traffic_before", ["registered_model", "asked_at", "id"])
    op.create_table(
        "traffic",
        sql.Column("seq", _NUMBER, primary_key=True),
        sql.Column("id", sql.String(64), nullable=False, unique=True),
        sql.Column("asked_at", sql.DateTime, nullable=False),
        sql.Column("model_version", text, nullable=False),
        sql.Column("question", sql.Text, nullable=False),
        sql.Column("answer", sql.Text, nullable=False),
        sql.Column("in_scope", sql.Boolean),
        sql.Column("latency_s", sql.Float, nullable=False),
        sql.Column("prompt_tokens", sql.Integer, nullable=False),
        sql.Column("completion_tokens", sql.Integer, nullable=False),
        sql.Column("finished", sql.Boolean, nullable=False),
        *(sql.Column(f"redacted_{kind}", sql.Integer, nullable=False, server_default="0") for kind in kinds),
        sql.Column("stored_at", sql.DateTime),
        sql.Column("registered_model", text, nullable=False, server_default=""),
        sql.Column("parameters", sql.Text),
        sql.Column("conversation", sql.String(64), nullable=False, server_default=""),
        sql.Column("messages", sql.Text),
        *_new_columns(),
    )
    before = sql.table("traffic_before", *map(sql.column, _OLD))
    rows = sql.select(*before.c).order_by(before.c.registered_model, before.c.asked_at, before.c.id)
    op.get_bind().execute(sql.insert(_TRAFFIC).from_select(list(_OLD), rows))
    op.drop_table("traffic_before")


def _share_all() -> None:
    """Have each record point at what an earlier one of its conversation holds."""
    connection, of = op.get_bind(), _TRAFFIC.c
    known = sql.or_(of.messages.is_not(None), of.parameters.is_not(None), of.conversation != "")
    columns = (of.seq, of.conversation, of.question, of.answer, of.messages, of.parameters)
    query = sql.select(*columns).where(known).order_by(of.conversation, of.seq).limit(_PAGE)
    earlier, place = _Earlier(), None
    while True:
        page = query if place is None else query.where(sql.tuple_(*place) < sql.tuple_(of.conversation, of.seq))
        rows = connection.execute(page).all()
        if not rows:
            return
        place = (sql.literal(rows[-1].conversation), sql.literal(rows[-1].seq))
        _share(connection, rows, earlier=earlier)


class _Earlier:
    """Records of one conversation that later ones may follow, by question and answer: number, request and answer."""

    def __init__(self) -> None:
        self.conversation = ""
        self.kept: dict[tuple[str, str], tuple[int, tuple[Message, ...]]] = {}

    def of(self, conversation: str) -> dict[tuple[str, str], tuple[int, tuple[Message, ...]]]:
        if conversation != self.conversation or not conversation:
            self.conversation, self.kept = conversation, {}
        return self.kept

    def add(self, question: str, *, answer: str, number: int, messages: tuple[Message, ...]) -> None:
        asked = messages or (Message(role="user", content=question),)
        self.kept[question, answer] = (number, (*asked, Message(role="assistant", content=answer)))
        if len(self.kept) > _KEPT:
            del self.kept[next(iter(self.kept))]


def _share(connection: sql.Connection, rows: Sequence[Any], *, earlier: _Earlier) -> None:
    requests = [tuple(map(Message.model_validate, json.loads(row.messages or "[]"))) for row in rows]
    prompts = [prompt_of(messages) for messages in requests]
    told = [
        {"conversation": row.conversation, "user": "", "key": "", "metadata": None}
        | {"parameters": short_json(json.loads(row.parameters or "{}"), Parameters)}
        for row in rows
    ]
    changes = []
    for row, messages, prompt, origin in zip(
        rows, requests, prompts, origins(connection, told, prompts=prompts), strict=True
    ):
        kept = earlier.of(row.conversation)
        parent, before = next((kept[asked] for asked in asked_before(messages) if asked in kept), (None, ()))
        packed = pack(messages, Beside(row.question, prompt, before))
        if parent is not None and not points_at_parent(packed):
            parent, packed = None, pack(messages, Beside(row.question, prompt))
        changes.append({"number": row.seq, "up": parent, "told": origin, "packed": packed})
        if row.conversation:
            earlier.add(row.question, answer=row.answer, number=row.seq, messages=messages)
    values: dict[str, Any] = {"parent": sql.bindparam("up"), "origin": sql.bindparam("told")}
    values |= {"messages": sql.bindparam("packed"), "parameters": None, "conversation": ""}
    connection.execute(sql.update(_TRAFFIC).where(_TRAFFIC.c.seq == sql.bindparam("number")).values(values), changes)
