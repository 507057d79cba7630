"""The tables in which windows, their records' verdicts and what was read last are kept."""

from __future__ import annotations

import sqlalchemy as sql

from ontopic.state.tables import model_column

METADATA = sql.MetaData()
WINDOWS = sql.Table(
    "windows",
    METADATA,
    sql.Column("id", sql.Integer, primary_key=True),
    model_column(),
    sql.Column("model_version", sql.String, nullable=False),
    sql.Column("start", sql.DateTime, nullable=False),  # times are naive, in UTC: SQLite keeps no time zone
    sql.Column("end", sql.DateTime, nullable=False),
    sql.Column("state", sql.String, nullable=False),  # due, closed, reopened or final
    sql.Column("reopened_at", sql.DateTime),
    sql.Column("closed_at", sql.DateTime),
    sql.Column("result", sql.String),
    sql.Index("one_a_stretch", "registered_model", "model_version", "start", unique=True),
    sql.Index("windows_by_state", "registered_model", "state"),
    sql.Index("windows_by_end", "registered_model", "end"),
)
MEMBERS = sql.Table(
    "members",
    METADATA,
    sql.Column("record_id", sql.String, primary_key=True),
    model_column(),
    sql.Column("model_version", sql.String, nullable=False),
    sql.Column("asked_at", sql.DateTime, nullable=False),
    sql.Column("window_id", sql.Integer),  # NULL while its window is open
    sql.Column("late", sql.Boolean, nullable=False),
    sql.Column("counted", sql.Boolean, nullable=False),  # false where it came after its window was final
    sql.Column("judge_id", sql.String),  # NULL while it is not judged
    sql.Column("verdict", sql.String),
    sql.Index("members_by_window", "registered_model", "window_id", "model_version", "asked_at", "record_id"),
)
# Of the judges beside the one that gates: any number on one record.
SIDE_VERDICTS = sql.Table(
    "side_verdicts",
    METADATA,
    sql.Column("record_id", sql.String, primary_key=True),
    sql.Column("judge_id", sql.String, primary_key=True),
    model_column(),
    sql.Column("verdict", sql.String, nullable=False),
)
# What asking judges has used: money where their prices are known.
SPENT = sql.Table(
    "spent",
    METADATA,
    sql.Column("id", sql.Integer, primary_key=True),
    model_column(),
    sql.Column("at", sql.DateTime, nullable=False),
    sql.Column("judge_id", sql.String, nullable=False),
    sql.Column("requests", sql.Integer, nullable=False),
    sql.Column("prompt_tokens", sql.Integer, nullable=False),
    sql.Column("completion_tokens", sql.Integer, nullable=False),
    sql.Column("usd", sql.Float),  # NULL where the price is not known
    sql.Index("spent_by_time", "registered_model", "at"),
)
# The windows of records that were given one by one: complete from the start, so that no late record reopens them. A
# table of its own, as stores of earlier versions have `windows` without such a column.
GIVEN = sql.Table("given_windows", METADATA, sql.Column("window_id", sql.Integer, primary_key=True))
KEPT = sql.Table(
    "kept",
    METADATA,
    model_column(primary_key=True),
    sql.Column("name", sql.String, primary_key=True),
    sql.Column("value", sql.String, nullable=False),
)
