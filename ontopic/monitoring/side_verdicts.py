"""Verdicts of the judges beside the one that gates, kept with the windows so that nothing is judged twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import sqlalchemy as sql

from ontopic.monitoring.spending import Spending
from ontopic.monitoring.tables import SIDE_VERDICTS
from ontopic.records import Verdict
from ontopic.state.database import insert_into

_IDS_A_QUERY = 500


class KeptVerdicts(Protocol):
    """Where verdicts are kept by record and judge, and what they cost."""

    @property
    def spending(self) -> Spending:
        """What asking the judges has cost."""

    def verdicts(self, ids: Sequence[str], judge_id: str) -> dict[str, Verdict]:
        """The verdicts of that judge that are kept on these records."""

    def keep_verdicts(self, verdicts: Mapping[str, Verdict], judge_id: str) -> None:
        """Keep a judge's verdicts by the records' ids."""


class SideVerdicts:
    """See ``KeptVerdicts``; of any number of judges on one record.

    Args:
        engine: of the tables of windows.
        registered_model: whose traffic it is.
    """

    def __init__(self, engine: sql.Engine, registered_model: str) -> None:
        self._engine, self._registered_model = engine, registered_model
        self.spending = Spending(engine, registered_model)

    def verdicts(self, ids: Sequence[str], judge_id: str) -> dict[str, Verdict]:
        """The verdicts of that judge that are kept on these records."""
        found: dict[str, Verdict] = {}
        with self._engine.connect() as connection:
            for start in range(0, len(ids), _IDS_A_QUERY):
                part = SIDE_VERDICTS.c.record_id.in_(ids[start : start + _IDS_A_QUERY])
                query = sql.select(SIDE_VERDICTS).where(SIDE_VERDICTS.c.judge_id == judge_id, part)
                found |= {r.record_id: Verdict.model_validate_json(r.verdict) for r in connection.execute(query)}
        return found

    def keep_verdicts(self, verdicts: Mapping[str, Verdict], judge_id: str) -> None:
        """Keep a judge's verdicts by the records' ids, in place of what it said of these before."""
        common = {"judge_id": judge_id, "registered_model": self._registered_model}
        rows = [{"record_id": i, "verdict": each.model_dump_json()} | common for i, each in verdicts.items()]
        if rows:
            with self._engine.begin() as connection:
                said = insert_into(connection, SIDE_VERDICTS)
                values = {name: said.excluded[name] for name in ("verdict", "registered_model")}
                replaced = said.on_conflict_do_update(index_elements=["record_id", "judge_id"], set_=values)
                connection.execute(replaced, rows)
