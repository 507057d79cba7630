"""Which process works on a registered model: one at a time, the next one soon, and never two that write."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sql

from ontopic.commands.locking import locked, nobody_works, work_on
from ontopic.errors import UserError
from ontopic.monitoring.window import Cut
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Record
from ontopic.state.database import open_state
from ontopic.state.lead import Lead, LeadLostError, check_still_leading, is_led, nobody_leads, take_lead
from ontopic.state.workspace import Workspace
from ontopic.traffic.store import TrafficStore

MODEL = "ontopic-banking"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CUT = Cut(length=timedelta(hours=1), records=1, lateness=timedelta(0))
TERMINATE = """
SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND classid = 726415095"""
HELD = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 726415095"


@pytest.fixture
def led(state_database: str) -> Iterator[Lead]:
    lead = take_lead(state_database, MODEL)
    assert lead is not None
    yield lead
    lead.release()


def break_connections(url: str) -> None:
    """As where a network breaks: the server has given up the connections of those that lead."""
    with open_state(url).begin() as connection:
        assert connection.scalar(sql.text(TERMINATE))
    while True:
        with open_state(url).begin() as connection:
            if not connection.scalar(sql.text(HELD)):
                return
        time.sleep(0.02)


def test_one_leads_a_model_and_the_next_ones_number_is_higher(state_database: str) -> None:
    first = take_lead(state_database, MODEL)
    assert first is not None and is_led(state_database, MODEL)
    assert take_lead(state_database, MODEL) is None
    other = take_lead(state_database, "ontopic-travel")
    assert other is not None
    first.check()
    first.release()
    other.release()
    assert not is_led(state_database, MODEL)
    second = take_lead(state_database, MODEL)
    assert second is not None and second.number == first.number + 1
    second.release()


def test_who_lost_its_connection_knows_it_and_another_one_leads(state_database: str, led: Lead) -> None:
    check_still_leading()
    break_connections(state_database)
    for _ in range(2):  # and goes on knowing it
        with pytest.raises(LeadLostError, match=r"works on ontopic-banking no more: its connection to the database"):
            check_still_leading()
    second = take_lead(state_database, MODEL)
    assert second is not None and second.number == led.number + 1
    second.release()


def test_who_was_replaced_writes_nothing_more(state_database: str, led: Lead) -> None:
    with WindowStore(state_database, MODEL) as windows, TrafficStore(state_database, MODEL) as traffic:
        traffic.add(Record(question="q", answer="a", model_version="1", asked_at=NOON))
        windows.take_in(traffic, CUT, now=NOON)
        break_connections(state_database)
        windows.restart_chart("1", NOON)  # nobody has taken over, so it harms nobody
        with open_state(state_database).begin() as connection:  # as another process does that leads now
            connection.execute(sql.text("UPDATE leads SET number = number + 1"))
        for write in (
            lambda: windows.due(CUT, NOON + timedelta(hours=5)),
            lambda: windows.take_in(traffic, CUT, now=NOON),
            lambda: windows.restart_chart("1", NOON),
        ):
            with pytest.raises(LeadLostError):
                write()
    with WindowStore(state_database, MODEL) as windows:
        assert windows.waiting("1") == 1  # no window was cut


def test_a_new_lead_waits_for_what_is_being_written(state_database: str, led: Lead) -> None:
    found: list[Lead | None] = []
    with WindowStore(state_database, MODEL) as windows:
        with windows._writing():
            break_connections(state_database)
            thread = threading.Thread(target=lambda: found.append(take_lead(state_database, MODEL)))
            thread.start()
            thread.join(timeout=0.5)
            assert not found  # it holds the lock, and does not lead before that is through
        thread.join(timeout=30)
    assert found[0] is not None
    found[0].release()


def test_an_erasure_knows_whether_anybody_works(state_database: str) -> None:
    with nobody_leads(state_database) as alone:
        assert alone and take_lead(state_database, MODEL) is None
    lead = take_lead(state_database, MODEL)
    assert lead is not None
    with nobody_leads(state_database) as alone:
        assert not alone
    lead.release()


def test_a_run_is_told_who_works_on_the_model(
    state_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, led: Lead
) -> None:
    monkeypatch.setenv("ONTOPIC_STATE_URL", state_database)
    workspace = Workspace(root=tmp_path)
    said = r"another run or watch works on ontopic-banking \(process \d+ on .*, since 2.* UTC\); wait for it"
    with pytest.raises(UserError, match=said), locked(workspace, MODEL):
        pass
    with locked(workspace, "ontopic-travel"), nobody_works(workspace) as alone:
        assert not alone


def test_who_loses_the_database_stands_by_and_goes_on(
    state_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONTOPIC_STATE_URL", state_database)
    said: list[str] = []
    turns: list[int] = []

    def work() -> None:
        turns.append(1)
        if len(turns) == 1:
            break_connections(state_database)
            check_still_leading()

    work_on(Workspace(root=tmp_path), MODEL, work=work, tell=said.append)
    assert len(turns) == 2
    works = f"This process works on {MODEL} now"
    assert [line.partition(":")[0] for line in said] == [works, "Standing by", works]


def test_the_server_gives_up_a_machine_that_is_gone_within_ten_seconds(state_database: str) -> None:
    with open_state(state_database).connect() as connection:
        query = sql.text("SELECT setting::int FROM pg_settings WHERE name LIKE 'tcp_keepalives_%' ORDER BY name")
        count, idle, interval = connection.scalars(query).all()
    assert 0 < idle + interval * count <= 8  # and who stands by looks each second
