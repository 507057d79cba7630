"""Windows of traffic as they close: which records are in each, their verdicts, and what became of them.

Time is event time: that of the question. A window closes once its end is ``lateness`` ago. A record that arrives later
reopens its window, once: after ``lateness`` more it is scored anew with all that came until then, and what comes after
that is counted, but not judged. A window holds the answers of one model version. Which records are new is known by when
they were stored, so what a turn costs follows new traffic, not history.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sql
from pydantic import BaseModel, ConfigDict
from sqlalchemy.dialects.sqlite import insert

from ontopic.judges.cards.card import JudgeCard
from ontopic.judges.judge import Judge
from ontopic.progress import progress
from ontopic.records import Judged, Outcome, Verdict
from ontopic.state.sqlite_file import SQLiteFile, naive_utc
from ontopic.statistics.correction import corrected
from ontopic.statistics.rates import Rate, rate
from ontopic.statistics.scores import Scores, score
from ontopic.traffic.store import TrafficStore

Status = Literal["ok", "suspected", "detected", "unknown"]

_METADATA = sql.MetaData()
_WINDOWS = sql.Table(
    "windows",
    _METADATA,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("model_version", sql.String, nullable=False),
    sql.Column("start", sql.DateTime, nullable=False),  # times are naive, in UTC: SQLite keeps no time zone
    sql.Column("end", sql.DateTime, nullable=False),
    sql.Column("state", sql.String, nullable=False),  # due, closed, reopened or final
    sql.Column("reopened_at", sql.DateTime),
    sql.Column("closed_at", sql.DateTime),
    sql.Column("result", sql.String),
    sql.Index("one_a_stretch", "model_version", "start", unique=True),
    sql.Index("windows_by_state", "state"),
    sql.Index("windows_by_end", "end"),
)
_MEMBERS = sql.Table(
    "members",
    _METADATA,
    sql.Column("record_id", sql.String, primary_key=True),
    sql.Column("model_version", sql.String, nullable=False),
    sql.Column("asked_at", sql.DateTime, nullable=False),
    sql.Column("window_id", sql.Integer),  # none while its window is open
    sql.Column("late", sql.Boolean, nullable=False),
    sql.Column("counted", sql.Boolean, nullable=False),  # false where it came after its window was final
    sql.Column("judge_id", sql.String),  # none while it is not judged
    sql.Column("verdict", sql.String),
    sql.Index("members_by_window", "window_id", "model_version", "asked_at", "record_id"),
)
_KEPT = sql.Table(
    "kept",
    _METADATA,
    sql.Column("name", sql.String, primary_key=True),
    sql.Column("value", sql.String, nullable=False),
)
_MARGIN = timedelta(minutes=1)  # between the time a record bears and when others can read it; clocks differ too
_JUDGED_AT_ONCE = 256  # a kill loses at most so many verdicts
_EPOCH = datetime(1970, 1, 1)  # naive, as the columns are
_IDS_A_QUERY = 500


class Cut(BaseModel):
    """How traffic is cut.

    Attributes:
        length: of a window; ``None`` for windows of ``records`` records.
        records: of a window (a few more where several were asked at the same time), where ``length`` is ``None``.
        lateness: how long after its end a window closes.
        sampling_rate: the share of records that is judged, in (0, 1].
    """

    model_config = ConfigDict(frozen=True)
    length: timedelta | None
    records: int
    lateness: timedelta
    sampling_rate: float = 1.0


class Drift(BaseModel):
    """Whether the questions' topics differ from the calibration set's.

    Attributes:
        score: the p-value of Evidently's test; small where they differ.
        detected: whether it is under the test's threshold.
        grown: the topics whose share grew most, with the share in the calibration set and in the window.
    """

    model_config = ConfigDict(frozen=True)
    score: float
    detected: bool
    grown: list[tuple[str, float, float]]


class WindowResult(BaseModel):
    """What became of a window when it closed.

    Attributes:
        status: ``ok``; ``suspected`` where the corrected guardrail score is under the policy's threshold; ``detected``
            where its whole 95 % interval is; ``unknown`` where no record could be judged.
        n: records of the window; ``late``: those of them that reopened it; ``too_late``: those that came after that
            and count nowhere.
        sampled: how many were given to the judge, and ``unjudged`` how many of these it could not judge.
        width, width_unsampled: of the raw score's interval, and about what it would be if all were judged.
        latency_s: median and 95 % quantile, in seconds.
        revision: 1, or 2 where late records reopened the window.
        report: path of its page.
    """

    model_config = ConfigDict(frozen=True)
    status: Status
    scores: Scores
    corrected: Rate
    threshold: float
    judge_id: str
    n: int
    late: int
    too_late: int
    sampled: int
    width: float
    width_unsampled: float
    latency_s: tuple[float, float]
    prompt_tokens: int
    completion_tokens: int
    drift: Drift | None = None
    revision: int = 1
    report: str = ""

    @property
    def unjudged_share(self) -> float:
        """Share of the sampled records that the judge could not judge."""
        return self.scores.unjudged / self.sampled if self.sampled else 0.0


class Window(BaseModel):
    """One stretch of one model version's traffic.

    Attributes:
        start, end: event times, in UTC; the end is the next window's start, or, where windows are cut by the number of
            records, the time of the last.
        result: ``None`` where it is due and not closed yet.
    """

    model_config = ConfigDict(frozen=True)
    id: int
    model_version: str
    start: datetime
    end: datetime
    state: Literal["due", "closed", "reopened", "final"]
    closed_at: datetime | None
    result: WindowResult | None

    @property
    def label(self) -> str:
        """Model version and start, as it stands in tables and alerts."""
        return f"version {self.model_version or 'unknown'}, {self.start:%Y-%m-%d %H:%M:%S}"


def status(score: Rate, threshold: float) -> Status:
    """Where a score stands by its estimate and its interval."""
    if score.n == 0 or score.value != score.value:
        return "unknown"
    if score.high < threshold:
        return "detected"
    return "suspected" if score.value < threshold else "ok"


class WindowStore(SQLiteFile):
    """Windows and the verdicts in them, in an SQLite file.

    One process at a time takes in traffic and closes windows (``run.py watch`` holds a lock); others may read.

    Raises:
        UserError: the file cannot be opened, or is no such database.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _METADATA, what="the windows")

    def take_in(self, traffic: TrafficStore, cut: Cut, *, now: datetime, since: datetime | None = None) -> int:
        """Note what was stored since the last call, and put late records into their windows.

        Args:
            since: from when on traffic counts, by the time of the question; looked at in the first call only. Where it
                is ``None``, all does.

        Returns:
            How many records are new.
        """
        begun, cursor = self._kept("since"), self._kept("stored_until")
        last = traffic.last_stored()
        if cursor:
            pages = traffic.arrivals(datetime.fromisoformat(cursor) - _MARGIN)
        else:
            pages = traffic.asked_since(since or datetime.min.replace(tzinfo=UTC))
            begun = begun or (since or datetime.min.replace(tzinfo=UTC)).isoformat()
            self._keep("since", begun)
        first = naive_utc(datetime.fromisoformat(begun or ""))
        new = 0
        for page in pages:
            rows = [
                {"record_id": a.id, "model_version": a.model_version, "asked_at": naive_utc(a.asked_at)}
                | {"window_id": None, "late": False, "counted": True}
                for a in page
                if naive_utc(a.asked_at) >= first
            ]
            if rows:
                new += self._add(rows, cut, now=now)
        self._keep("stored_until", (last or _EPOCH.replace(tzinfo=UTC)).isoformat())
        return new

    def _add(self, rows: Sequence[dict[str, Any]], cut: Cut, *, now: datetime) -> int:
        with self._engine.begin() as connection:
            ids = [row["record_id"] for row in rows]
            query = sql.select(_MEMBERS.c.record_id)
            parts = [ids[start : start + _IDS_A_QUERY] for start in range(0, len(ids), _IDS_A_QUERY)]
            known = {i for part in parts for i in connection.scalars(query.where(_MEMBERS.c.record_id.in_(part)))}
            new = [row for row in rows if row["record_id"] not in known]
            ends = sql.select(_WINDOWS.c.model_version, sql.func.max(_WINDOWS.c.end)).group_by(_WINDOWS.c.model_version)
            last = {row[0]: row[1] for row in connection.execute(ends)}
            for row in new:
                if row["asked_at"] > last.get(row["model_version"], _EPOCH):
                    continue
                window = self._late_for(connection, row, cut=cut)
                if window is None:
                    continue
                row |= {"window_id": window.id, "late": window.state != "due", "counted": window.state != "final"}
                if window.state == "closed":
                    opened = sql.update(_WINDOWS).where(_WINDOWS.c.id == window.id)
                    connection.execute(opened.values(state="reopened", reopened_at=naive_utc(now)))
            if new:
                connection.execute(sql.insert(_MEMBERS), new)
        return len(new)

    def _late_for(self, connection: sql.Connection, row: Mapping[str, Any], *, cut: Cut) -> Any:
        """The window that was cut without this record, if any."""
        same = _WINDOWS.c.model_version == row["model_version"]
        windows = sql.select(_WINDOWS).where(same)
        if cut.length is not None:
            # Where nothing was asked then until now, its window is cut and closed as any other.
            start = _start(row["asked_at"], cut.length)
            return connection.execute(windows.where(_WINDOWS.c.start == start)).first()
        before = windows.where(_WINDOWS.c.start <= row["asked_at"]).order_by(_WINDOWS.c.start.desc()).limit(1)
        return connection.execute(before).first() or connection.execute(windows.order_by(_WINDOWS.c.start)).first()

    def due(self, cut: Cut, now: datetime) -> list[Window]:
        """Cut the windows whose time has come, and return all that are to be closed, the earliest first."""
        until = naive_utc(now) - cut.lateness
        with self._engine.begin() as connection:
            versions = connection.scalars(
                sql.select(_MEMBERS.c.model_version).where(_MEMBERS.c.window_id.is_(None)).distinct()
            ).all()
            for version in versions:
                if cut.length is not None:
                    self._cut_by_time(connection, version, length=cut.length, until=until)
                else:
                    self._cut_by_count(connection, version, records=cut.records, until=until)
            reopened = sql.and_(_WINDOWS.c.state == "reopened", _WINDOWS.c.reopened_at <= until)
            query = sql.select(_WINDOWS).where(sql.or_(_WINDOWS.c.state == "due", reopened))
            return [_window(row) for row in connection.execute(query.order_by(_WINDOWS.c.end, _WINDOWS.c.id))]

    def _cut_by_time(self, connection: sql.Connection, version: str, *, length: timedelta, until: datetime) -> None:
        open_ = sql.and_(_MEMBERS.c.window_id.is_(None), _MEMBERS.c.model_version == version)
        while True:
            first = connection.scalar(sql.select(sql.func.min(_MEMBERS.c.asked_at)).where(open_))
            if first is None or _start(first, length) + length > until:
                return
            start = _start(first, length)
            window = self._new(connection, version, start=start, end=start + length)
            inside = sql.and_(open_, _MEMBERS.c.asked_at < start + length)
            connection.execute(sql.update(_MEMBERS).where(inside).values(window_id=window))

    def _cut_by_count(self, connection: sql.Connection, version: str, *, records: int, until: datetime) -> None:
        open_ = sql.and_(_MEMBERS.c.window_id.is_(None), _MEMBERS.c.model_version == version)
        times = sql.select(_MEMBERS.c.asked_at).where(open_).order_by(_MEMBERS.c.asked_at, _MEMBERS.c.record_id)
        while True:
            first = connection.scalar(times.limit(1))
            last = connection.scalar(times.offset(records - 1).limit(1))
            if first is None or last is None or last > until:
                return
            window = self._new(connection, version, start=first, end=last)
            inside = sql.and_(open_, _MEMBERS.c.asked_at <= last)
            connection.execute(sql.update(_MEMBERS).where(inside).values(window_id=window))

    def _new(self, connection: sql.Connection, version: str, *, start: datetime, end: datetime) -> int:
        row = {"model_version": version, "start": start, "end": end, "state": "due"}
        return connection.execute(sql.insert(_WINDOWS).values(row).returning(_WINDOWS.c.id)).scalar_one()

    def judge(self, window: Window, traffic: TrafficStore, *, judge: Judge, sampling_rate: float) -> Judged:
        """The verdicts on a window's sampled records: only those that this judge has not given yet are asked for.

        They are kept every few hundred records, so a kill loses little. One that is ``unjudged`` is asked for again.
        """
        members = self._members(window)
        records = traffic.records(ids=[m.record_id for m in members if _sampled(m.record_id, sampling_rate)])
        kept = {m.record_id: Verdict.model_validate_json(m.verdict) for m in members if m.judge_id == judge.id}
        missing = [r for r in records if r.id not in kept or kept[r.id].outcome == "unjudged"]
        with progress(f"verdicts on {window.label}", len(missing), unit="records") as advance:
            for start in range(0, len(missing), _JUDGED_AT_ONCE):
                part = missing[start : start + _JUDGED_AT_ONCE]
                verdicts = judge.judge(part, advance)
                rows = [
                    {"record": record.id, "by": judge.id, "said": verdict.model_dump_json()}
                    for record, verdict in zip(part, verdicts, strict=True)
                ]
                kept |= {record.id: verdict for record, verdict in zip(part, verdicts, strict=True)}
                one = _MEMBERS.c.record_id == sql.bindparam("record")
                values: dict[str, Any] = {"judge_id": sql.bindparam("by"), "verdict": sql.bindparam("said")}
                with self._engine.begin() as connection:
                    connection.execute(sql.update(_MEMBERS).where(one).values(values), rows)
        return Judged(records=records, verdicts=[kept[record.id] for record in records])

    def result(
        self, window: Window, judged: Judged, *, card: JudgeCard, threshold: float, drift: Drift | None
    ) -> WindowResult:
        """What becomes of a window with these verdicts. Nothing is written yet."""
        members = self._members(window)
        scores = score(judged.verdicts)
        raw = scores.guardrail_score
        right = corrected(raw, card.sensitivity, specificity=card.specificity)
        passes = round(raw.value * len(members)) if raw.n else 0
        unsampled = rate(passes, len(members)) if raw.n else raw
        latencies = sorted(record.latency_s for record in judged.records)
        too_late = sql.select(sql.func.count()).select_from(_MEMBERS)
        too_late = too_late.where(_MEMBERS.c.window_id == window.id, _MEMBERS.c.counted.is_(False))
        with self._engine.connect() as connection:
            late = int(connection.scalar(too_late) or 0)
        return WindowResult(
            status=status(right, threshold),
            scores=scores,
            corrected=right,
            threshold=threshold,
            judge_id=judged.verdicts[0].judge_id if judged.verdicts else card.judge_id,
            n=len(members),
            late=sum(row.late for row in members),
            too_late=late,
            sampled=len(judged.records),
            width=raw.high - raw.low,
            width_unsampled=unsampled.high - unsampled.low,
            latency_s=(_quantile(latencies, 0.5), _quantile(latencies, 0.95)),
            prompt_tokens=sum(record.prompt_tokens for record in judged.records),
            completion_tokens=sum(record.completion_tokens for record in judged.records),
            drift=drift,
            revision=1 if window.state == "due" else 2,
        )

    def close_window(self, window: Window, result: WindowResult, *, now: datetime) -> Window:
        """Write a result: the window is closed, or final where it was reopened."""
        state = "closed" if window.state == "due" else "final"
        values = {"state": state, "closed_at": naive_utc(now), "result": result.model_dump_json()}
        with self._engine.begin() as connection:
            connection.execute(sql.update(_WINDOWS).where(_WINDOWS.c.id == window.id).values(values))
            return _window(connection.execute(sql.select(_WINDOWS).where(_WINDOWS.c.id == window.id)).one())

    def closed(self, n: int, model_version: str | None = None) -> list[Window]:
        """The last ``n`` windows that were closed (-1: all), in the order of their ends."""
        query = sql.select(_WINDOWS).where(_WINDOWS.c.result.is_not(None))
        if model_version is not None:
            query = query.where(_WINDOWS.c.model_version == model_version)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(_WINDOWS.c.end.desc(), _WINDOWS.c.id.desc()).limit(n)).all()
        return [_window(row) for row in rows[::-1]]

    def judged(self, windows: Iterable[Window], traffic: TrafficStore) -> Judged:
        """The kept verdicts on these windows' records, and the records, in the order of the questions."""
        verdicts = {
            row.record_id: Verdict.model_validate_json(row.verdict)
            for window in windows
            for row in self._members(window)
            if row.verdict
        }
        records = traffic.records(ids=list(verdicts))
        return Judged(records=records, verdicts=[verdicts[record.id] for record in records])

    def waiting(self) -> int:
        """How many records are in no window yet."""
        query = sql.select(sql.func.count()).select_from(_MEMBERS).where(_MEMBERS.c.window_id.is_(None))
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

    def forget(self, before: datetime) -> None:
        """Delete the verdicts on what was asked before that time; what became of the windows stays."""
        with self._engine.begin() as connection:
            connection.execute(sql.delete(_MEMBERS).where(_MEMBERS.c.asked_at < naive_utc(before)))

    def _members(self, window: Window) -> Sequence[Any]:
        query = sql.select(_MEMBERS).where(_MEMBERS.c.window_id == window.id, _MEMBERS.c.counted)
        with self._engine.connect() as connection:
            return connection.execute(query.order_by(_MEMBERS.c.asked_at, _MEMBERS.c.record_id)).all()

    def _kept(self, name: str) -> str | None:
        with self._engine.connect() as connection:
            return connection.scalar(sql.select(_KEPT.c.value).where(_KEPT.c.name == name))

    def _keep(self, name: str, value: str) -> None:
        row = insert(_KEPT).values(name=name, value=value)
        with self._engine.begin() as connection:
            connection.execute(row.on_conflict_do_update(index_elements=["name"], set_={"value": value}))


def _sampled(record_id: str, sampling_rate: float) -> bool:
    """Whether a record is in the sample: by its id's hash, so that the same ones are at every call."""
    return int.from_bytes(hashlib.sha256(record_id.encode()).digest()[:8]) < sampling_rate * 2**64


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _start(asked_at: datetime, length: timedelta) -> datetime:
    return asked_at - (asked_at - _EPOCH) % length


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


_TIMES = ("start", "end", "closed_at")
