"""What a challenger answers unseen, in the shadow stage of a rollout: apart from the records, each beside one of them.

No window, no export and no training reads it. It goes when its record does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import sqlalchemy as sql
from pydantic import BaseModel, ConfigDict

from ontopic.records import Record
from ontopic.state.database import insert_into
from ontopic.state.sqlite_file import naive_utc
from ontopic.traffic.reading import parts
from ontopic.traffic.schema import SHADOW, TRAFFIC


class ShadowAnswer(BaseModel):
    """What a version would have answered to the request of a record that another one answered."""

    model_config = ConfigDict(frozen=True)
    record_id: str
    model_version: str
    answer: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finished: bool = True

    def in_place(self, record: Record) -> Record:
        """The record with this answer in place of its own."""
        update = self.model_dump(exclude={"record_id"})
        return record.model_copy(update=update)


def write_shadow(connection: sql.Connection, answer: ShadowAnswer) -> bool:
    """Store an answer, whose record must be there; ``False`` where it is not, or not any more.

    Args:
        connection: may write; nobody deletes meanwhile.
    """
    if connection.scalar(sql.select(TRAFFIC.c.seq).where(TRAFFIC.c.id == answer.record_id)) is None:
        return False
    row = answer.model_dump() | {"stored_at": naive_utc(datetime.now(UTC))}
    connection.execute(insert_into(connection, SHADOW).values(row).on_conflict_do_nothing())
    return True


def read_shadow(connection: sql.Connection, ids: Sequence[str], *, model_version: str | None) -> Iterable[ShadowAnswer]:
    """What was answered unseen beside these records.

    Args:
        model_version: by this version; by any where it is ``None``.
    """
    names = [column for column in SHADOW.c if column.name in ShadowAnswer.model_fields]
    by = sql.true() if model_version is None else SHADOW.c.model_version == model_version
    for part in parts(ids):
        for row in connection.execute(sql.select(*names).where(SHADOW.c.record_id.in_(part), by)):
            yield ShadowAnswer.model_validate(row._asdict())
