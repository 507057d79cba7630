"""Judged records as a table, and as Evidently's data set with the verdicts as a descriptor.

A verdict becomes a row only here, where a report is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from evidently import ColumnType, DataDefinition, Dataset
from evidently._pydantic_compat import PrivateAttr
from evidently.core.datasets import DatasetColumn, Descriptor
from evidently.legacy.options.base import Options

from ontopic.records import Record, Verdict

VERDICT_COLUMNS = {
    "verdict": ColumnType.Categorical,
    "score": ColumnType.Numerical,
    "in_scope": ColumnType.Categorical,
    "declined": ColumnType.Categorical,
    "explanation": ColumnType.Text,
    "cause": ColumnType.Text,
    "judge_id": ColumnType.Categorical,
}
RECORD_COLUMNS = ["question", "asked", "answer", "model_version", "asked_at", "latency_s", "completion_tokens"]


def verdict_frame(records: Sequence[Record], verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Records and their verdicts as a table of one row a record.

    Returns:
        The columns question, asked, answer, model_version, asked_at (UTC), latency_s, completion_tokens, verdict,
        score, in_scope, declined, explanation, cause, judge_id. A score is ``NaN``, a scope or declination ``<NA>``,
        where unknown.

    Raises:
        ValueError: the two are not equally long.
    """
    if len(records) != len(verdicts):
        raise ValueError(f"{len(records)} records, {len(verdicts)} verdicts")
    frame = pd.DataFrame(
        [{column: getattr(r, column) for column in RECORD_COLUMNS} for r in records], None, RECORD_COLUMNS
    )
    frame["asked_at"] = pd.to_datetime(frame["asked_at"], utc=True)
    return pd.concat([frame.astype({"latency_s": float, "completion_tokens": int}), _verdict_columns(verdicts)], axis=1)


def _verdict_columns(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    frame = pd.DataFrame([v.model_dump() | {"verdict": v.outcome} for v in verdicts], None, list(VERDICT_COLUMNS))
    return frame.astype({"score": float, "in_scope": "boolean", "declined": "boolean"})


def verdicts_of(frame: pd.DataFrame) -> list[Verdict]:
    """The verdicts in a table that `verdict_frame` made."""
    columns = frame[list(VERDICT_COLUMNS)].rename(columns={"verdict": "outcome"}).astype(object)
    return [
        Verdict(**{str(k): v for k, v in r.items()}) for r in columns.where(columns.notna(), None).to_dict("records")
    ]


class JudgeVerdict(Descriptor):
    """The verdicts that a judge gave beforehand, as the descriptor columns of a data set."""

    _columns: Any = PrivateAttr(None)

    def __init__(self, verdicts: Sequence[Verdict], alias: str = "verdict") -> None:
        """Take one verdict a row of the data set, in its order."""
        super().__init__(alias=alias)
        object.__setattr__(self, "_columns", _verdict_columns(verdicts))

    def generate_data(self, dataset: Dataset, options: Options) -> dict[str, DatasetColumn]:
        """The verdict's columns; raises ValueError where there is not one verdict a row."""
        rows = dataset.as_dataframe()
        if len(rows) != len(self._columns):
            raise ValueError(f"{len(rows)} records, {len(self._columns)} verdicts")
        judged = self._columns.set_axis(rows.index)
        return {name: DatasetColumn(kind, judged[name]) for name, kind in VERDICT_COLUMNS.items()}

    def list_output_columns(self) -> list[str]:
        """Names of the columns that `generate_data` gives."""
        return list(VERDICT_COLUMNS)


def dataset_of(frame: pd.DataFrame, verdicts: Sequence[Verdict]) -> Dataset:
    """Evidently's data set of records, with the verdicts as its descriptor."""
    definition = DataDefinition(
        timestamp="asked_at",
        text_columns=["question", "asked", "answer"],
        categorical_columns=["model_version"],
        numerical_columns=["latency_s", "completion_tokens"],
        datetime_columns=[],
        unknown_columns=[],
        list_columns=[],
    )
    with np.errstate(invalid="ignore"):  # Evidently divides by the count of scores, 0 where nothing is judged
        return Dataset.from_pandas(frame[RECORD_COLUMNS], definition, descriptors=[JudgeVerdict(verdicts)])
