"""What must be true of a cluster after all that was done to it: nothing lost, nothing doubled, one champion."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence

import mlflow
import psycopg
import sqlalchemy as sql
from cluster.assistants import MODEL
from cluster.cluster import Cluster
from cluster.load import Asked
from cluster.receiver import Receiver

from ontopic.config.settings import load_settings
from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.tables import WINDOWS
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Record
from ontopic.state.workspace import Workspace
from ontopic.traffic.store import TrafficStore


def spooled(cluster: Cluster) -> int:
    """How many records wait on the replicas' disks."""
    return sum(1 for replica in cluster.replicas for _ in (replica.state / "spool").glob("*"))


def check_traffic(records: Sequence[Record], ledger: Sequence[Asked]) -> dict[str, int]:
    """Each answer that a customer got is one record, word for word; no question has more records than attempts.

    Returns:
        How many answers, how many questions without one, and how many records of attempts whose answer never arrived.
    """
    stored = {record.id: record for record in records}
    assert len(stored) == len(records)
    answered = [asked for asked in ledger if asked.record]
    lost = [asked for asked in answered if asked.record not in stored]
    assert not lost, f"{len(lost)} of {len(answered)} answers have no record: {lost[:5]}"
    for asked in answered:
        record = stored[asked.record]
        assert hashlib.sha256(record.answer.encode()).hexdigest() == asked.sha256, (asked, record)
        assert (record.model_version, record.metadata["ask"]) == (asked.version, asked.ask)
    by_ask = Counter(record.metadata["ask"] for record in records if "ask" in record.metadata)
    attempts = {asked.ask: asked.attempts for asked in ledger} | {"a probe": 10**6}
    doubled = {ask: n for ask, n in by_ask.items() if n > attempts.get(ask, 0)}
    assert not doubled, f"questions with more records than attempts: {doubled}"
    got = {asked.record for asked in answered}
    unheard = [r for r in records if r.metadata.get("ask") in attempts.keys() - {"a probe"} and r.id not in got]
    return {"answered": len(answered), "unanswered": len(ledger) - len(answered), "unheard": len(unheard)}


def unclosed(windows: WindowStore) -> int:
    """How many windows are cut, and wait for their result."""
    query = sql.select(sql.func.count()).select_from(WINDOWS).where(WINDOWS.c.state.in_(("due", "reopened")))
    with windows._engine.connect() as connection:
        return int(connection.scalar(query) or 0)


def check_windows(windows: WindowStore, records: Sequence[Record], said: str) -> dict[str, int]:
    """Each record is in one window, which was closed, and has one verdict of the window's judge.

    Args:
        records: those whose windows' time is over.
        said: what all ``watch`` processes said.
    """
    wanted, found = {record.id for record in records}, Counter[str]()
    unjudged = verdicts = too_late = 0
    closed = windows.closed(-1)
    for window in closed:
        assert window.result is not None
        ids = windows.ids(window)
        found.update(ids)
        kept = windows.verdicts(ids, window.result.judge_id)
        assert set(kept) == set(ids), f"{window.label}: {len(ids) - len(kept)} records have no verdict"
        assert window.result.n == len(ids), f"{window.label}: its result counts {window.result.n} of {len(ids)}"
        verdicts += len(kept)
        unjudged += window.result.scores.unjudged
        too_late += windows.counts(window).too_late
    doubled = [each for each, n in found.items() if n > 1]
    assert not doubled, f"{len(doubled)} records are in several windows"
    missing = wanted - set(found)
    assert len(missing) <= too_late, f"{len(missing)} of {len(wanted)} records are in no window"
    assert not too_late, f"{too_late} records came after their windows were closed for good"
    told = Counter(re.findall(r"^\d{4}-\d\d-\d\d \S+ (.+?): (?:ok|suspected|detected|unknown)", said, re.MULTILINE))
    for label, n in told.items():
        revisions = max((w.result.revision for w in closed if w.result and w.label == label), default=1)
        assert n <= revisions, f"{label} was closed {n} times"
    return {"windows": len(closed), "records": len(wanted), "verdicts": verdicts, "unjudged": unjudged}


def check_alerts(alerts: Alerts, receiver: Receiver, *, kills_of_watch: int) -> dict[str, int]:
    """Each alert was raised once and told: a second copy, which bears its number, only where a kill came between."""
    history, told = alerts.history(10_000)[::-1], receiver.alerts()
    for before, after in itertools.combinations(history, 2):
        if before.rule == after.rule:  # while one is open, further events are added to it
            assert before.closed_at is not None and before.closed_at <= after.raised_at, (before, after)
    unheard = [alert.id for alert in history if alert.id not in told]
    assert not unheard, f"nobody was told of the alerts {unheard}"
    assert set(told) == {alert.id for alert in history}
    copies = sum(told.values()) - len(told)
    assert copies <= kills_of_watch, told
    return {"alerts": len(history), "copies": copies}


def check_champion(cluster: Cluster, key: str) -> str:
    """One champion, by the registry, by the promotion record, whose chain holds, and by each replica.

    A loop that is killed after its promotion begins anew with the new champion, so there may be several promotions: of
    each version one, after the one gate that it passed.
    """
    client = mlflow.MlflowClient(tracking_uri=cluster.mlflow.url)
    champion = str(client.get_model_version_by_alias(MODEL, "champion").version)
    bearers = [str(v.version) for v in client.search_model_versions(f"name = '{MODEL}'") if "champion" in v.aliases]
    assert bearers in ([champion], [])  # a search may leave the aliases out
    assert all(v.tags.get("ontopic.complete") == "true" for v in client.search_model_versions(f"name = '{MODEL}'"))
    verified = cluster.run("record", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    entries = json.loads(cluster.run("record", "--json").stdout)
    moves = [entry["version"] for entry in entries if entry["kind"] in ("promotion", "rollback")]
    passed = [e["version"] for e in entries if e["kind"] == "gate" and e["facts"]["gate"] == "passed"]
    assert len(moves) == len(set(moves)) > 1, moves
    assert moves == ["1", *passed], (moves, passed)  # the base model's is the first
    assert moves[-1] == champion
    numbers = [entry["number"] for entry in entries]
    assert numbers == sorted(set(numbers))
    for replica in cluster.replicas:
        assert replica.version(key) == champion, replica.said()[-2000:]
    return champion


def advisory_locks(cluster: Cluster) -> int:
    """How many of PostgreSQL's advisory locks are held on our database."""
    with psycopg.connect(cluster.postgresql.database("ontopic")) as connection:
        query = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
        row = connection.execute(query + " WHERE locktype = 'advisory' AND d.datname = 'ontopic'").fetchone()
        return int(row[0]) if row else 0


def stores(cluster: Cluster) -> tuple[TrafficStore, WindowStore, Alerts]:
    """As a machine of the operator's opens them."""
    watch = cluster.watches[0]
    workspace, settings = Workspace(root=watch.state), load_settings(watch.config)
    return (
        TrafficStore(workspace.traffic, MODEL),
        WindowStore(workspace.windows, MODEL),
        Alerts(workspace.alerts, settings.alerts, policy="gardening"),
    )
