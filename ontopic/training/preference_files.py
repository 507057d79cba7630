"""Pairs as files that TRL takes, and that are read back as a preference set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ontopic.state.whole_file import output_file
from ontopic.training.preferences import Preference

Format = Literal["jsonl", "parquet"]


def write_preferences(pairs: Sequence[Preference], out: Path, *, ids: Sequence[str], to: Format | None = None) -> int:
    """Write the pairs in TRL's conversational form: ``prompt``, ``chosen`` and ``rejected`` as lists of messages, and
    beside them ``in_scope``, ``source``, ``beginnings`` and the pair's ``id``.

    Args:
        ids: of the pairs.
        to: by default ``parquet`` for a name that ends so, else ``jsonl``.

    Returns:
        How many were written.

    Raises:
        UserError: the file can't be written.
    """
    rows = [preference_row_of(pair, pair_id) for pair, pair_id in zip(pairs, ids, strict=True)]
    with output_file(out) as part:
        if (to or ("parquet" if out.suffix == ".parquet" else "jsonl")) == "parquet":
            _write_parquet(rows, part)
        else:
            part.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return len(rows)


def preference_row_of(pair: Preference, pair_id: str) -> dict[str, Any]:
    """A pair as a row of such a file."""
    return {
        "prompt": pair.messages,
        "chosen": [{"role": "assistant", "content": pair.chosen}],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
        "in_scope": pair.in_scope,
        "source": pair.source,
        "beginnings": pair.beginnings,
        "id": pair_id,
    }


def _write_parquet(rows: Sequence[dict[str, Any]], path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    fields = [(name, messages) for name in ("prompt", "chosen", "rejected")]
    fields += [("in_scope", pa.bool_()), ("source", pa.string()), ("beginnings", pa.bool_()), ("id", pa.string())]
    parquet.write_table(pa.Table.from_pylist(list(rows), pa.schema(fields)), path, compression="zstd")
