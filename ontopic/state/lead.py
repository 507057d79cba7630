"""Which process works on a registered model, where several machines share their state: PostgreSQL's locks say it.

The lock is held by a connection of its own, so that the death of its process, or of its machine, frees it. Each lead
has a number, higher than the last one's. Whoever held a lead that is another's now writes nothing more: each
transaction that writes looks at the number, and a new lead waits for those that are under way (``check_leads``).
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import sqlalchemy as sql

from ontopic.errors import UserError
from ontopic.state.database import insert_into, open_state
from ontopic.state.sqlite_file import naive_utc

METADATA = sql.MetaData()
LEADS = sql.Table(
    "leads",
    METADATA,
    sql.Column("registered_model", sql.String, primary_key=True),
    sql.Column("number", sql.Integer, nullable=False),
    sql.Column("holder", sql.String, nullable=False),
    sql.Column("since", sql.DateTime, nullable=False),  # naive, in UTC
)
_ONE_MODEL, _ANY_MODEL = 726_415_095, 726_415_096  # any numbers, the same in every process
_HELD: list[Lead] = []  # this process's


class LeadLostError(UserError):
    """The lead is another process's now, or nobody's."""


class Lead:
    """That this process, and no other, works on a registered model.

    Attributes:
        number: of the lead, higher than that of the one before.
    """

    def __init__(self, connection: sql.Connection, url: str, *, registered_model: str, number: int) -> None:
        self._connection, self.url, self.registered_model, self.number = connection, url, registered_model, number

    def check(self) -> None:
        """Make sure that the lock is still this process's.

        Raises:
            LeadLostError: it is not.
        """
        own = sql.text(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid() "
            "AND classid = :one AND objid = :model AND objsubid = 2"
        )
        try:
            held = self._connection.scalar(own, {"one": _ONE_MODEL, "model": _number(self.registered_model)})
        except sql.exc.SQLAlchemyError:  # the connection is gone, and the lock with it
            held = 0
        if not held:
            raise _lost(self)

    def release(self) -> None:
        """Give the lead back."""
        _HELD.remove(self)
        with suppress(sql.exc.SQLAlchemyError):
            self._connection.close()


def take_lead(url: str, registered_model: str) -> Lead | None:
    """The lead, where nobody has it.

    Raises:
        UserError: as ``open_state``.
        sqlalchemy.exc.DBAPIError: the connection broke meanwhile.
    """
    connection, lead = _session(url), None
    try:
        if _locked(connection, sql.func.pg_try_advisory_lock_shared(_ANY_MODEL, 0)) and _locked(
            connection, sql.func.pg_try_advisory_lock(_ONE_MODEL, _number(registered_model))
        ):
            row = {"number": 1, "holder": _this_process(), "since": naive_utc(datetime.now(UTC))}
            first = insert_into(connection, LEADS).values(registered_model=registered_model, **row)
            row["number"] = LEADS.c.number + 1
            taken = first.on_conflict_do_update(index_elements=["registered_model"], set_=row)
            number = connection.execute(taken.returning(LEADS.c.number)).scalar_one()
            lead = Lead(connection, url, registered_model=registered_model, number=number)
            _HELD.append(lead)
        return lead
    finally:
        if lead is None:
            connection.close()


def lead_in_words(url: str, registered_model: str) -> str:
    """Who has, or had last, the lead, as it may be shown."""
    with open_state(url).connect() as connection:
        row = connection.execute(sql.select(LEADS).where(LEADS.c.registered_model == registered_model)).first()
    return "another process" if row is None else f"{row.holder}, since {row.since:%Y-%m-%d %H:%M:%S} UTC"


def is_led(url: str, registered_model: str) -> bool:
    """Whether some process works on a registered model."""
    held = sql.text(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = :one AND objid = :model "
        "AND objsubid = 2 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with open_state(url).connect() as connection:
        return bool(connection.scalar(held, {"one": _ONE_MODEL, "model": _number(registered_model)}))


@contextmanager
def nobody_leads(url: str) -> Iterator[bool]:
    """Whether nobody works on any registered model; then nobody begins to within the block."""
    connection = _session(url)
    try:
        yield _locked(connection, sql.func.pg_try_advisory_lock(_ANY_MODEL, 0))
    finally:
        connection.close()


def check_leads(connection: sql.Connection, url: str) -> None:
    """Make sure in a transaction that no lead of this process on that database has passed to another one; none does
    before the transaction has ended.

    Raises:
        LeadLostError: so it has.
    """
    for lead in [each for each in _HELD if each.url == url]:
        own = sql.select(LEADS.c.number).where(LEADS.c.registered_model == lead.registered_model)
        if connection.scalar(own.with_for_update(read=True)) != lead.number:
            raise _lost(lead)


def check_still_leading() -> None:
    """Make sure that every lead of this process is still its own, before what no transaction of ours holds.

    Raises:
        LeadLostError: one is not.
    """
    for lead in list(_HELD):
        lead.check()


def _session(url: str) -> sql.Connection:
    """A connection of its own, which no pool takes back, outside transactions."""
    connection = open_state(url).connect().execution_options(isolation_level="AUTOCOMMIT")
    connection.detach()
    return connection


def _locked(connection: sql.Connection, lock: sql.ColumnElement[bool]) -> bool:
    return bool(connection.scalar(sql.select(lock)))


def _number(registered_model: str) -> int:
    """Of 31 bits, as PostgreSQL's locks in pairs are known by."""
    return int.from_bytes(hashlib.sha256(registered_model.encode()).digest()[:4]) >> 1


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _lost(lead: Lead) -> LeadLostError:
    return LeadLostError(
        f"this process works on {lead.registered_model} no more: its connection to the database broke, and another "
        "process may have taken over"
    )
