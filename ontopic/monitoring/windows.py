"""Windows of traffic: which records are in each, their verdicts, and what became of them.

Time is event time: that of the question. A window closes once its end is ``lateness`` ago. A record that arrives later
reopens its window, once: after ``lateness`` more it is scored anew with all that came until then, and what comes after
that is counted, but not judged. A window holds the answers of one version of one registered model. Which records are
new is known by when they were stored, so what a turn costs follows new traffic, not history.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sql

from ontopic.monitoring.cutting import EPOCH, cut_given, cut_waiting, last_ends, place_late
from ontopic.monitoring.members import at_random, is_sampled, member_pages, outcomes_in
from ontopic.monitoring.side_verdicts import SideVerdicts
from ontopic.monitoring.spending import Spending
from ontopic.monitoring.tables import GIVEN, KEPT, MEMBERS, METADATA, SIDE_VERDICTS, WINDOWS
from ontopic.monitoring.totals import MOST_KEPT
from ontopic.monitoring.window import Counts, Cut, Window, WindowResult
from ontopic.records import EARLIEST, MOST_AHEAD, Judged, Outcome, Record, Verdict
from ontopic.state.database import insert_into
from ontopic.state.sqlite_file import delete_for_good, naive_utc
from ontopic.state.tables import ModelTables

if TYPE_CHECKING:
    from ontopic.traffic.store import TrafficStore

_MARGIN = timedelta(minutes=1)  # between the time a record bears and when others can read it; clocks differ too
_IDS_A_QUERY = 500
_PLACE = sql.tuple_(WINDOWS.c.end, WINDOWS.c.id)  # of a window among those of its version
_TIMES = ("start", "end", "closed_at")


class WindowStore(ModelTables):
    """Windows of one registered model's traffic, and the verdicts in them.

    One process at a time takes in traffic and closes windows (``run.py watch`` holds a lock); others may read.

    Args:
        at: as ``Tables`` takes it.

    Raises:
        UserError: as ``Tables``.
    """

    def __init__(self, at: Path | str, registered_model: str) -> None:
        super().__init__(at, registered_model, metadata=METADATA, what="the windows")
        self._own = WINDOWS.c.registered_model == registered_model
        self._own_members = MEMBERS.c.registered_model == registered_model

    @property
    def beside(self) -> SideVerdicts:
        """The verdicts of the judges beside the one that gates."""
        return SideVerdicts(self._engine, self.registered_model)

    @property
    def spending(self) -> Spending:
        """What asking judges has cost."""
        return Spending(self._engine, self.registered_model)

    def take_in(self, traffic: TrafficStore, cut: Cut, *, now: datetime, since: datetime | None = None) -> int:
        """Note what was stored since the last call, and put late records into their windows.

        Args:
            traffic: of the same registered model.
            since: from when on traffic counts, by the time of the question; looked at in the first call only. Where it
                is ``None``, all does.

        Returns:
            How many records are new.
        """
        self._check({traffic.registered_model})
        begun, cursor = self._kept("since"), self._kept("stored_until")
        last = traffic.last_stored()
        if cursor:
            pages = traffic.arrivals(datetime.fromisoformat(cursor) - _MARGIN)
        else:
            pages = traffic.asked_since(since or datetime.min.replace(tzinfo=UTC))
            begun = begun or (since or datetime.min.replace(tzinfo=UTC)).isoformat()
            self._keep("since", begun)
        first = max(naive_utc(datetime.fromisoformat(begun or "")), naive_utc(EARLIEST))
        new = 0
        for page in pages:
            rows = [
                {"record_id": a.id, "registered_model": self.registered_model, "model_version": a.model_version}
                | {"asked_at": naive_utc(a.asked_at), "window_id": None, "late": False, "counted": True}
                for a in page
                if naive_utc(a.asked_at) >= first
            ]
            if rows:
                new += self._add(rows, cut, now=now)
        self._keep("stored_until", (last or EPOCH.replace(tzinfo=UTC)).isoformat())
        return new

    def _add(self, rows: Sequence[dict[str, Any]], cut: Cut, *, now: datetime) -> int:
        with self._writing() as connection:
            known = {row.record_id for row in _rows_of(connection, [row["record_id"] for row in rows])}
            last = last_ends(connection, self.registered_model)
            new = [
                place_late(connection, row, cut=cut, now=naive_utc(now))
                if row["asked_at"] <= last.get(row["model_version"], EPOCH)
                else row
                for row in rows
                if row["record_id"] not in known
            ]
            if new:
                connection.execute(sql.insert(MEMBERS), new)
        return len(new)

    def put(self, records: Sequence[Record], size: int) -> None:
        """Put records into windows of ``size`` of them, those aside that are in a window already.

        What ``take_in`` has read, and what it will read, is as before; it finds these records known.

        Args:
            records: stored ones of the same registered model, with id and time.
        """
        self._check({record.registered_model for record in records})
        with self._writing() as connection:
            placed = {row.record_id for row in _rows_of(connection, [r.id for r in records]) if row.window_id}
            cut_given(connection, [record for record in records if record.id not in placed], size=size)

    def due(self, cut: Cut, now: datetime) -> list[Window]:
        """Cut the windows whose time has come, and return all that are to be closed, the earliest first."""
        until = naive_utc(now) - cut.lateness
        with self._writing() as connection:
            cut_waiting(connection, self.registered_model, cut=cut, until=until)
            reopened = sql.and_(WINDOWS.c.state == "reopened", WINDOWS.c.reopened_at <= until)
            query = sql.select(WINDOWS).where(self._own, sql.or_(WINDOWS.c.state == "due", reopened))
            return [_window(row) for row in connection.execute(query.order_by(WINDOWS.c.end, WINDOWS.c.id))]

    def holding(self, ids: Sequence[str]) -> list[Window]:
        """The windows that these records are in, closed or not, in the order of their ends."""
        with self._engine.connect() as connection:
            wanted = {row.window_id for row in _rows_of(connection, ids)}
            rows = [
                row
                for part in _parts(sorted(each for each in wanted if each))
                for row in connection.execute(sql.select(WINDOWS).where(self._own, WINDOWS.c.id.in_(part)))
            ]
        return [_window(row) for row in sorted(rows, key=lambda row: (row.end, row.id))]

    def was_put(self, window: Window) -> bool:
        """Whether ``put`` made the window, and not ``due``."""
        with self._engine.connect() as connection:
            return connection.scalar(sql.select(GIVEN).where(GIVEN.c.window_id == window.id)) is not None

    def ids(self, window: Window, sampling_rate: float = 1.0) -> list[str]:
        """The records of a window that are in the sample, in the order of the questions.

        Args:
            sampling_rate: share of them, in (0, 1]; the same ones at every call.
        """
        return [each for page in self.id_pages(window, sampling_rate) for each in page]

    def id_pages(self, window: Window, sampling_rate: float = 1.0) -> Iterator[list[str]]:
        """As ``ids``, in bounded memory, some thousand at a time."""
        for rows in member_pages(self._engine, self._of(window)):
            yield [row.record_id for row in rows if is_sampled(row.record_id, sampling_rate)]

    def asked(self, model_version: str, since: datetime, *, until: datetime, sampling_rate: float = 1.0) -> list[str]:
        """The records of a version that were asked in this stretch of time, both ends included, and are in the sample.

        Those of windows that are still open are among them.
        """
        at = MEMBERS.c.asked_at.between(naive_utc(since), naive_utc(until))
        query = sql.select(MEMBERS.c.record_id).where(self._own_members, MEMBERS.c.model_version == model_version, at)
        with self._engine.connect() as connection:
            ids = connection.scalars(query.order_by(MEMBERS.c.asked_at, MEMBERS.c.record_id)).all()
        return [each for each in ids if is_sampled(each, sampling_rate)]

    def counts(self, window: Window) -> Counts:
        """How many records it has, and how many came late."""
        counted, late = sql.case((MEMBERS.c.counted, 1), else_=0), sql.case((MEMBERS.c.late, 1), else_=0)
        sums = sql.select(sql.func.count(), sql.func.sum(counted), sql.func.sum(counted * late))
        of_window = sql.and_(self._own_members, MEMBERS.c.window_id == window.id)
        with self._engine.connect() as connection:
            n, in_time, reopened = connection.execute(sums.select_from(MEMBERS).where(of_window)).one()
        return Counts(n=int(in_time or 0), late=int(reopened or 0), too_late=int(n) - int(in_time or 0))

    def verdicts(self, ids: Sequence[str], judge_id: str) -> dict[str, Verdict]:
        """The verdicts of that judge that are kept on these records."""
        with self._engine.connect() as connection:
            rows = [row for row in _rows_of(connection, ids) if row.judge_id == judge_id]
        return {row.record_id: Verdict.model_validate_json(row.verdict) for row in rows}

    def keep_verdicts(self, verdicts: Mapping[str, Verdict], judge_id: str) -> None:
        """Keep a judge's verdicts by the records' ids, in place of what was kept on these."""
        rows = [
            {"record": record_id, "by": judge_id, "said": verdict.model_dump_json()}
            for record_id, verdict in verdicts.items()
        ]
        values: dict[str, Any] = {"judge_id": sql.bindparam("by"), "verdict": sql.bindparam("said")}
        one = sql.update(MEMBERS).where(MEMBERS.c.record_id == sql.bindparam("record")).values(values)
        if rows:
            with self._writing() as connection:
                connection.execute(one, rows)

    def close_window(self, window: Window, result: WindowResult, *, now: datetime) -> Window:
        """Write a result: what was due is closed, what was reopened is final, any other stays what it was."""
        state = {"due": "closed", "reopened": "final"}.get(window.state, window.state)
        values = {"state": state, "closed_at": naive_utc(now), "result": result.model_dump_json()}
        with self._writing() as connection:
            connection.execute(sql.update(WINDOWS).where(WINDOWS.c.id == window.id).values(values))
            return _window(connection.execute(sql.select(WINDOWS).where(WINDOWS.c.id == window.id)).one())

    def earlier(self, window: Window, n: int, *, since: datetime | None = None, oldest: bool = False) -> list[Window]:
        """The last ``n`` closed windows of its version that end before it, the newest first.

        Args:
            since: only those that end after that time.
            oldest: the first ``n`` instead, the oldest first.
        """
        query = sql.select(WINDOWS).where(self._closed_of(window.model_version))
        query = query.where(_place(window) > _PLACE)
        if since is not None:
            query = query.where(WINDOWS.c.end > naive_utc(since))
        by = (WINDOWS.c.end, WINDOWS.c.id) if oldest else (WINDOWS.c.end.desc(), WINDOWS.c.id.desc())
        with self._engine.connect() as connection:
            return [_window(row) for row in connection.execute(query.order_by(*by).limit(n))]

    def after(self, window: Window) -> list[Window]:
        """The closed windows of its version that end after it, the earliest first."""
        later = _place(window) < _PLACE
        query = sql.select(WINDOWS).where(self._closed_of(window.model_version), later)
        with self._engine.connect() as connection:
            return [_window(row) for row in connection.execute(query.order_by(WINDOWS.c.end, WINDOWS.c.id))]

    def outcomes(self, window: Window) -> Iterable[tuple[datetime, bool]] | None:
        """When its judged records were asked, and whether they pass, in the order of the questions.

        Returns:
            ``None`` where they are no longer those that its result counts: forgotten, or by another judge.
        """
        if window.result is None:
            return None
        by = sql.and_(self._of(window), MEMBERS.c.judge_id == window.result.judge_id)
        judged = sum(1 for _ in outcomes_in(self._engine, by))
        return outcomes_in(self._engine, by) if judged == window.result.scores.guardrail_score.n else None

    def rewrite(self, window: Window, result: WindowResult) -> Window:
        """Write a closed window's result anew; its state stays."""
        with self._writing() as connection:
            one = sql.update(WINDOWS).where(WINDOWS.c.id == window.id)
            connection.execute(one.values(result=result.model_dump_json()))
        return window.model_copy(update={"result": result})

    def restart_chart(self, model_version: str, at: datetime) -> None:
        """Have a version's chart begin anew at that time, as something was done about its alarm."""
        self._keep(f"chart of version {model_version}", at.isoformat())

    def chart_restarted(self, model_version: str) -> datetime | None:
        """When that was last."""
        kept = self._kept(f"chart of version {model_version}")
        return datetime.fromisoformat(kept) if kept else None

    def thumbs_seen(self, now: datetime) -> datetime | None:
        """When thumbs were looked for the last time before this one, which is at ``now``."""
        kept = self._kept("thumbs_seen")
        self._keep("thumbs_seen", now.isoformat())
        return datetime.fromisoformat(kept) if kept else None

    @property
    def requests_seen(self) -> datetime | None:
        """Until when failed requests were looked for."""
        kept = self._kept("requests_seen")
        return datetime.fromisoformat(kept) if kept else None

    @requests_seen.setter
    def requests_seen(self, until: datetime) -> None:
        self._keep("requests_seen", until.isoformat())

    def _closed_of(self, model_version: str) -> sql.ColumnElement[bool]:
        return sql.and_(self._own, WINDOWS.c.model_version == model_version, WINDOWS.c.result.is_not(None))

    def is_first(self, window: Window) -> bool:
        """Whether no earlier window of its version was closed."""
        earlier = sql.and_(WINDOWS.c.model_version == window.model_version, WINDOWS.c.start < naive_utc(window.start))
        query = sql.select(sql.exists().where(self._own, earlier, WINDOWS.c.result.is_not(None)))
        with self._engine.connect() as connection:
            return not connection.scalar(query)

    def closed(self, n: int, model_version: str | None = None) -> list[Window]:
        """The last ``n`` windows that were closed (-1: all), in the order of their ends."""
        query = sql.select(WINDOWS).where(self._own, WINDOWS.c.result.is_not(None))
        if model_version is not None:
            query = query.where(WINDOWS.c.model_version == model_version)
        with self._engine.connect() as connection:
            newest = query.order_by(WINDOWS.c.end.desc(), WINDOWS.c.id.desc())
            rows = connection.execute(newest.limit(n) if n >= 0 else newest).all()
        return [_window(row) for row in rows[::-1]]

    def judged(self, windows: Iterable[Window], traffic: TrafficStore) -> Judged:
        """The kept verdicts on these windows' records, and the records, in the order of the questions: all of them, or
        ``MOST_KEPT`` at random where they are more."""
        ids = (
            row.record_id
            for window in windows
            for rows in member_pages(self._engine, sql.and_(self._of(window), MEMBERS.c.verdict.is_not(None)))
            for row in rows
        )
        chosen = at_random(ids, MOST_KEPT)
        with self._engine.connect() as connection:
            kept = {row.record_id: row.verdict for row in _rows_of(connection, chosen)}
        records = traffic.records(ids=chosen)
        verdicts = [Verdict.model_validate_json(kept[record.id]) for record in records]
        return Judged(records=records, verdicts=verdicts)

    def waiting(self, model_version: str | None = None) -> int:
        """How many records are in no window yet, without those whose time is wrong."""
        last = naive_utc(datetime.now(UTC)) + MOST_AHEAD
        in_time = MEMBERS.c.asked_at.between(naive_utc(EARLIEST), last)
        open_ = sql.and_(self._own_members, MEMBERS.c.window_id.is_(None), in_time)
        query = sql.select(sql.func.count()).select_from(MEMBERS).where(open_)
        if model_version is not None:
            query = query.where(MEMBERS.c.model_version == model_version)
        with self._engine.connect() as connection:
            return int(connection.scalar(query) or 0)

    def verdict_counts(self) -> dict[tuple[Outcome, str], int]:
        """How many verdicts the closed windows hold, by outcome and model version."""
        counts: dict[tuple[Outcome, str], int] = {}
        for window in self.closed(-1):
            if window.result is None:
                continue
            share, version = window.result.scores.guardrail_score, window.model_version
            passes = round(share.value * share.n) if share.n else 0
            found: dict[Outcome, int] = {"pass": passes, "fail": share.n - passes}
            for outcome, n in (found | {"unjudged": window.result.scores.unjudged}).items():
                counts[outcome, version] = counts.get((outcome, version), 0) + n
        return counts

    def forget(self, ids: Sequence[str]) -> int:
        """Delete what is known of these records, of whichever registered model, their verdicts among it; returns of how
        many. What became of the windows stays."""
        with self._writing() as connection:
            delete_for_good(connection)
            n = 0
            for part in _parts(ids):
                connection.execute(sql.delete(SIDE_VERDICTS).where(SIDE_VERDICTS.c.record_id.in_(part)))
                n += connection.execute(sql.delete(MEMBERS).where(MEMBERS.c.record_id.in_(part))).rowcount
            return n

    def _of(self, window: Window) -> sql.ColumnElement[bool]:
        """Which members are a window's and count; its version is named for the index alone."""
        own = sql.and_(self._own_members, MEMBERS.c.model_version == window.model_version)
        return sql.and_(own, MEMBERS.c.window_id == window.id, MEMBERS.c.counted)

    def _kept(self, name: str) -> str | None:
        with self._engine.connect() as connection:
            own = sql.and_(KEPT.c.registered_model == self.registered_model, KEPT.c.name == name)
            return connection.scalar(sql.select(KEPT.c.value).where(own))

    def _keep(self, name: str, value: str) -> None:
        keys = ["registered_model", "name"]
        with self._writing() as connection:
            row = insert_into(connection, KEPT).values(registered_model=self.registered_model, name=name, value=value)
            connection.execute(row.on_conflict_do_update(index_elements=keys, set_={"value": value}))

    def _check(self, models: set[str | None]) -> None:
        if others := models - {self.registered_model}:
            raise ValueError(f"the windows are of {self.registered_model!r}, and this traffic is of {others}")


def _rows_of(connection: sql.Connection, ids: Sequence[str]) -> Iterator[Any]:
    for part in _parts(ids):
        yield from connection.execute(sql.select(MEMBERS).where(MEMBERS.c.record_id.in_(part)))


def _parts(ids: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (ids[start : start + _IDS_A_QUERY] for start in range(0, len(ids), _IDS_A_QUERY))


def _place(window: Window) -> sql.Tuple:
    return sql.tuple_(sql.literal(naive_utc(window.end)), sql.literal(window.id))


def _window(row: Any) -> Window:
    result = WindowResult.model_validate_json(row.result) if row.result else None
    utc = {name: value and value.replace(tzinfo=UTC) for name, value in row._asdict().items() if name in _TIMES}
    return Window(
        id=row.id,
        model_version=row.model_version,
        start=utc["start"],
        end=utc["end"],
        state=row.state,
        closed_at=utc["closed_at"],
        result=result,
    )
