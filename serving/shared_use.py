"""What each API key used in the last minute, counted in the database that replicas share."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sql

from ontopic.state.database import STATE, database_url, open_state, postgresql_engine
from serving.use import Kind, Taken

_MINUTE_S = 60
_SECONDS = _MINUTE_S + 1  # counts by the second: the first of a minute's has begun up to a second before it
# The database's clock, which is the same for all replicas.
_NOW = "extract(epoch FROM clock_timestamp())"
# A wait for a database that is gone ends soon, also in the thread that nobody waits for any more.
_SOON = {"connect_timeout": "2", "tcp_user_timeout": "2000"}


class SharedUse:
    """The counts of all replicas: a row a key and kind, so that one statement looks, counts and tells.

    Args:
        url: of the shared state.

    Raises:
        UserError: it can't be opened.
    """

    def __init__(self, url: str) -> None:
        open_state(url)  # or says what is wrong
        self._engine = postgresql_engine(database_url(url, what=STATE.what).update_query_dict(_SOON))

    def take(self, kind: Kind, of: str, *, n: int, most: int) -> Taken:
        """Count ``n`` of ``most`` a minute, all of them or none.

        Args:
            of: which key: its SHA-256.
            n: no more than ``most``.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: they could not be counted.
        """
        values = {"key": of, "kind": kind, "n": n, "most": most}
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            row = connection.execute(sql.text(_take()), values).one_or_none()
            taken = row is not None
            row = row or connection.execute(sql.text(_look()), values).one()
        leaves = [(n, row.second - i + _SECONDS - float(row.now)) for i, n in enumerate(row.counts) if n]
        left = most - sum(row.counts)
        wait_s = None if taken else _until_free(n - left, leaves)
        return Taken(wait_s, max(0, left), max((s for _, s in leaves), default=0.0))


def _until_free(n: int, leaves: Iterable[tuple[int, float]]) -> float:
    """Seconds until ``n`` have left.

    Args:
        leaves: how many leave in how many seconds, the last first.
    """
    for leaving, wait_s in reversed(list(leaves)):
        n -= leaving
        if n <= 0:
            return wait_s
    return 0.0


def _kept(second: str) -> str:
    """A row's counts as of a later second: the newest first, those that have left cut off."""
    passed = f"LEAST({_SECONDS}, GREATEST(0, {second} - used.second))::int"
    return f"((array_fill(0::bigint, ARRAY[{passed}]) || used.counts)[1:{_SECONDS}])"


def _take() -> str:
    # What conflicts is locked before its condition and its new values are computed: replicas count one after the other.
    kept = _kept("excluded.second")
    return f"""
        INSERT INTO rate_use AS used (key, kind, second, counts)
        VALUES (:key, :kind, floor({_NOW})::bigint, CAST(:n AS bigint) || array_fill(0::bigint, ARRAY[{_MINUTE_S}]))
        ON CONFLICT (key, kind) DO UPDATE SET
            second = GREATEST(used.second, excluded.second),
            counts = {kept}[1] + :n || {kept}[2:]
        WHERE (SELECT sum(n) FROM unnest({kept}) AS n) + :n <= :most
        RETURNING second, counts, {_NOW} AS now
    """  # noqa: S608


def _look() -> str:
    return f"""
        SELECT floor({_NOW})::bigint AS second, {_kept(f"floor({_NOW})::bigint")} AS counts, {_NOW} AS now
        FROM rate_use AS used WHERE key = :key AND kind = :kind
    """  # noqa: S608
