"""What the automatic loop did, and its predecessors' answers in canary stretches, beside the windows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import sqlalchemy as sql
from pydantic import BaseModel, ConfigDict

from ontopic.config.watch_settings import WatchSettings
from ontopic.records import Verdict
from ontopic.state.database import insert_into
from ontopic.state.sqlite_file import delete_for_good, naive_utc
from ontopic.state.tables import ModelTables, model_column

if TYPE_CHECKING:
    from ontopic.registry.promotion_record import Entry
    from ontopic.registry.promotions import Promotion
    from ontopic.watch.canary_evidence import CanaryEvidence

Kind = Literal[
    "retraining",
    "refused",
    "waiting",
    "stage",
    "promoted",
    "rolled_back",
    "stayed",
    "failed",
    "would_retrain",
    "would_roll_back",
]
_ENDS = ("refused", "waiting", "stage", "promoted", "failed", "rolled_back")
_NEWEST = 1000

METADATA = sql.MetaData()
_ACTIONS = sql.Table(
    "actions",
    METADATA,
    sql.Column("id", sql.Integer, primary_key=True),
    model_column(),
    sql.Column("at", sql.DateTime, nullable=False),  # naive, in UTC
    sql.Column("kind", sql.String, nullable=False),
    sql.Column("version", sql.String, nullable=False),
    sql.Column("subject", sql.String, nullable=False),
    sql.Column("why", sql.String, nullable=False),
)
_REPLAYS = sql.Table(
    "replays",
    METADATA,
    model_column(primary_key=True),
    sql.Column("record_id", sql.String, primary_key=True),
    sql.Column("model_version", sql.String, primary_key=True),
    sql.Column("judge_id", sql.String, primary_key=True),
    sql.Column("verdict", sql.String, nullable=False),
)
_LOOKS = sql.Table(
    "canary_looks",
    METADATA,
    sql.Column("id", sql.Integer, primary_key=True),
    model_column(),
    sql.Column("model_version", sql.String, nullable=False),
    sql.Column("promoted_at", sql.DateTime, nullable=False),  # naive, in UTC
    sql.Column("evidence", sql.String, nullable=False),
)


class Action(BaseModel):
    """One thing that the automatic loop did, or in a dry run would have done.

    Attributes:
        kind: ``stayed`` where a canary stretch ended without a rollback; ``stage`` where a stage of a rollout begins,
            and ``rolled_back`` also where one ends with the champion's return.
        version: of the model that it is about.
        subject: the window that gave rise to it.
    """

    model_config = ConfigDict(frozen=True)
    at: datetime
    kind: Kind
    version: str
    subject: str
    why: str


class ActionStore(ModelTables):
    """Actions on one registered model, and verdicts on predecessors' answers."""

    def __init__(self, at: Path | str, registered_model: str) -> None:
        super().__init__(at, registered_model, metadata=METADATA, what="what the automatic loop did")

    def add(self, action: Action) -> Action:
        """Write an action down."""
        row = action.model_dump() | {"at": naive_utc(action.at), "registered_model": self.registered_model}
        with self._writing() as connection:
            connection.execute(sql.insert(_ACTIONS).values(row))
        return action

    def newest(self, n: int = _NEWEST) -> list[Action]:
        """The last ``n`` actions, the oldest first."""
        with self._engine.connect() as connection:
            own = sql.select(_ACTIONS).where(_ACTIONS.c.registered_model == self.registered_model)
            rows = connection.execute(own.order_by(_ACTIONS.c.id.desc()).limit(n)).all()
        return [
            Action(at=row.at.replace(tzinfo=UTC), kind=row.kind, version=row.version, subject=row.subject, why=row.why)
            for row in rows[::-1]
        ]

    def replayed(self, ids: Sequence[str], model_version: str, *, judge_id: str) -> dict[str, Verdict]:
        """Verdicts on what a version answered in a canary stretch, by the id of the record that it was asked for."""
        query = sql.select(_REPLAYS).where(
            _REPLAYS.c.registered_model == self.registered_model,
            _REPLAYS.c.model_version == model_version,
            _REPLAYS.c.judge_id == judge_id,
        )
        with self._engine.connect() as connection:
            rows = {row.record_id: Verdict.model_validate_json(row.verdict) for row in connection.execute(query)}
        return {each: rows[each] for each in ids if each in rows}

    def add_replays(self, ids: Sequence[str], model_version: str, *, verdicts: Sequence[Verdict]) -> None:
        """Keep such verdicts, one an id."""
        replayed = {"registered_model": self.registered_model, "model_version": model_version}
        rows = [
            {**replayed, "record_id": i, "judge_id": v.judge_id, "verdict": v.model_dump_json()}
            for i, v in zip(ids, verdicts, strict=True)
        ]
        with self._writing() as connection:
            said = insert_into(connection, _REPLAYS)
            key = [column.name for column in _REPLAYS.primary_key.columns]
            replaced = said.on_conflict_do_update(index_elements=key, set_={"verdict": said.excluded.verdict})
            connection.execute(replaced, rows)

    def forget(self, ids: Sequence[str]) -> int:
        """Delete verdicts on what these records were asked again for, of whichever registered model; returns how many.

        Args:
            ids: some hundred at a time.
        """
        with self._writing() as connection:
            delete_for_good(connection)
            return connection.execute(sql.delete(_REPLAYS).where(_REPLAYS.c.record_id.in_(ids))).rowcount

    def looks(self, model_version: str, promoted_at: datetime) -> list[CanaryEvidence]:
        """What the looks of a canary stretch found, the first first.

        Args:
            promoted_at: when the version was promoted, with which its stretch began.
        """
        from ontopic.watch.canary_evidence import (
            CanaryEvidence,
        )  # with numpy, which who reads actions need not wait for

        own = _LOOKS.c.registered_model == self.registered_model
        stretch = sql.and_(_LOOKS.c.model_version == model_version, _LOOKS.c.promoted_at == naive_utc(promoted_at))
        with self._engine.connect() as connection:
            query = sql.select(_LOOKS.c.evidence).where(own, stretch).order_by(_LOOKS.c.id)
            return [CanaryEvidence.model_validate_json(each) for each in connection.scalars(query)]

    def add_look(self, evidence: CanaryEvidence) -> None:
        """Keep what a look found."""
        row = {"model_version": evidence.version, "promoted_at": naive_utc(evidence.promoted_at)}
        row |= {"registered_model": self.registered_model, "evidence": evidence.model_dump_json()}
        with self._writing() as connection:
            connection.execute(sql.insert(_LOOKS).values(row))


def free_at(
    watch: WatchSettings, past: Sequence[Action], *, history: Sequence[Promotion], record: Sequence[Entry] = ()
) -> datetime | None:
    """When the cool-down after the last outcome, promotion or rollback is over; ``None`` where there was none.

    Args:
        record: entries of the promotion record, among which a rejection or an expiry counts too.
    """
    acted = [action.at for action in past if action.kind in _ENDS] + [promotion.at for promotion in history]
    acted += [entry.at for entry in record if entry.kind in ("rejection", "expiry")]
    return max(acted) + watch.cooldown if acted else None
