"""Databases on PostgreSQL: their URLs, the shared state's tables, and where a workspace keeps what."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sql

from ontopic.errors import UserError
from ontopic.state.database import STATE, database_name, database_url, open_state, postgresql_engine
from ontopic.state.workspace import Workspace, open_workspace


def test_an_empty_database_gets_the_tables_once_whoever_comes_first(postgres_database: str) -> None:
    broken: list[BaseException] = []

    def open_() -> None:
        try:
            open_state(postgres_database)
        except BaseException as error:
            broken.append(error)

    threads = [threading.Thread(target=open_) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not broken
    engine = open_state(postgres_database)
    assert {"keys", "alerts", "windows", "members", "actions", "grades", "leads"} <= {
        *sql.inspect(engine).get_table_names()
    }
    with engine.connect() as connection:
        assert connection.scalar(sql.text("SELECT count(*) FROM state_version")) == 1


def test_a_newer_releases_tables_are_refused(postgres_database: str) -> None:
    with open_state(postgres_database).begin() as connection:
        connection.execute(sql.text("UPDATE state_version SET version_num = '9999'"))
    with pytest.raises(UserError, match=r"the shared state postgresql://127.*is of a newer release.*update OnTopic"):
        open_state(postgres_database)


def test_all_tables_share_one_engine_which_can_be_used_after_it_was_closed(postgres_database: str) -> None:
    from ontopic.monitoring.windows import WindowStore
    from ontopic.traffic.store import TrafficStore

    engine = open_state(postgres_database)
    with TrafficStore(postgres_database) as store:
        assert store._engine is engine
        store.count()
        with WindowStore(postgres_database, "m") as windows:
            windows.waiting()
        assert engine.pool.checkedin()  # type: ignore[attr-defined]  # who closed left the other's connections alone
    assert not engine.pool.checkedin()  # type: ignore[attr-defined]
    with engine.connect() as connection:
        assert connection.scalar(sql.select(1)) == 1


def test_the_revisions_make_the_tables_that_are_used(postgres_database: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    from ontopic.judges.llm.kept_grades import METADATA as GRADES
    from ontopic.monitoring.alerts import METADATA as ALERTS
    from ontopic.monitoring.tables import METADATA as WINDOWS
    from ontopic.state.lead import METADATA as LEADS
    from ontopic.watch.actions import METADATA as ACTIONS
    from serving.keys import METADATA as KEYS

    def is_ours(_: object, name: str | None, kind: str, reflected: bool, beside: object) -> bool:
        return not (kind == "table" and reflected and beside is None)  # else it is another subject's

    with open_state(postgres_database).connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": is_ours})
        for metadata in (GRADES, ALERTS, WINDOWS, LEADS, ACTIONS, KEYS):
            assert compare_metadata(context, metadata) == []


def test_each_revision_is_listed() -> None:
    found = sorted(path.stem.removeprefix("state_") for path in (STATE.folder / "versions").glob("state_*.py"))
    assert found == list(STATE.revisions)


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "sqlite:///a.db", "nonsense", "postgresql://u:secret@h:x/d"])
def test_another_database_is_refused_without_its_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="is not on PostgreSQL; give a URL such as") as refused:
        database_url(url, what=STATE.what)
    assert "secret" not in str(refused.value)


def test_a_database_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(UserError, match=r"the shared state postgresql://127.0.0.1:9/d could not be opened") as refused:
        open_state("postgresql://u:secret@127.0.0.1:9/d")
    assert "secret" not in str(refused.value)
    postgresql_engine.cache_clear()
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"the shared state is on PostgreSQL, whose driver is not installed.*postgres"):
        open_state("postgresql://u:secret@127.0.0.1:9/d")


def test_a_users_own_wait_for_a_connection_counts() -> None:
    url = database_url("postgresql://u:p@h/d?connect_timeout=2", what=STATE.what)
    assert url.query["connect_timeout"] == "2" and database_name(str(url)) == "postgresql+psycopg://h/d"


URL, OTHER = "postgresql://u:p@h/state", "postgres://u:p@h/traffic"


@pytest.mark.parametrize(
    ("state", "traffic", "shared", "stored"),
    [
        ("", "", None, "traffic.db"),
        (URL, "", URL, URL),
        ("", OTHER, OTHER, OTHER),
        (URL, OTHER, URL, OTHER),
        ("", "sqlite:///a.db", None, "sqlite:///a.db"),
    ],
    ids=["neither", "state", "traffic", "both", "traffic-in-another-file"],
)
def test_where_state_is_shared(
    state: str, traffic: str, shared: str | None, stored: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ONTOPIC_STATE_URL", state)
    monkeypatch.setenv("ONTOPIC_TRAFFIC_URL", traffic)
    workspace = Workspace(root=tmp_path)
    assert workspace.state_url == shared
    assert workspace.traffic == (tmp_path / stored if stored == "traffic.db" else stored)


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "sqlite:///a.db", "postgresql"])
def test_state_on_another_database_is_refused_at_once(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ONTOPIC_STATE_URL", url)
    with pytest.raises(UserError, match="ONTOPIC_STATE_URL names no PostgreSQL database; give") as refused:
        open_workspace(tmp_path)
    assert "secret" not in str(refused.value)
