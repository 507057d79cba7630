"""API keys, alerts, windows and their verdicts, actions, LLM judges' grades, and who leads."""

from __future__ import annotations

import sqlalchemy as sql
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    _keys()
    _alerts()
    _windows()
    _actions()
    op.create_table(
        "grades",
        sql.Column("key", sql.LargeBinary, primary_key=True),
        sql.Column("grade", sql.String, nullable=False),
    )
    op.create_table(
        "leads",
        sql.Column("registered_model", sql.String, primary_key=True),
        sql.Column("number", sql.Integer, nullable=False),
        sql.Column("holder", sql.String, nullable=False),
        sql.Column("since", sql.DateTime, nullable=False),
    )


def _model(*, primary_key: bool = False) -> sql.Column[str]:
    return sql.Column("registered_model", sql.String, primary_key=primary_key, nullable=False, server_default="")


def _keys() -> None:
    op.create_table(
        "keys",
        sql.Column("sha256", sql.String(64), primary_key=True),
        sql.Column("name", sql.String(64), nullable=False),
        sql.Column("prefix", sql.String(16), nullable=False),
        sql.Column("requests_per_minute", sql.Integer),
        sql.Column("tokens_per_minute", sql.Integer),
        sql.Column("made_at", sql.DateTime, nullable=False),
        sql.Column("expires_at", sql.DateTime),
        sql.Column("revoked_at", sql.DateTime),
    )
    living = sql.text("revoked_at IS NULL")
    op.create_index("one_a_name", "keys", ["name"], unique=True, postgresql_where=living)


def _alerts() -> None:
    op.create_table(
        "events",
        sql.Column("id", sql.Integer, primary_key=True),
        sql.Column("policy", sql.String, nullable=False),
        sql.Column("kind", sql.String, nullable=False),
        sql.Column("subject", sql.String, nullable=False),
        sql.Column("at", sql.DateTime, nullable=False),
        sql.Column("text", sql.String, nullable=False),
        sql.UniqueConstraint("policy", "kind", "subject"),
    )
    op.create_table(
        "alerts",
        sql.Column("id", sql.Integer, primary_key=True),
        sql.Column("policy", sql.String, nullable=False),
        sql.Column("rule", sql.String, nullable=False),
        sql.Column("severity", sql.String, nullable=False),
        sql.Column("text", sql.String, nullable=False),
        sql.Column("raised_at", sql.DateTime, nullable=False),
        sql.Column("last_at", sql.DateTime, nullable=False),
        sql.Column("events", sql.Integer, nullable=False),
        sql.Column("last_event", sql.Integer, nullable=False),
        sql.Column("closed_at", sql.DateTime),
        sql.Column("closed_by", sql.String),
    )
    op.create_table(
        "over",
        sql.Column("policy", sql.String, primary_key=True),
        sql.Column("kind", sql.String, primary_key=True),
        sql.Column("event", sql.Integer, nullable=False),
    )
    op.create_table(
        "outbox",
        sql.Column("id", sql.Integer, primary_key=True),
        sql.Column("alert_id", sql.Integer, nullable=False),
        sql.Column("target", sql.String, nullable=False),
        sql.Column("title", sql.String, nullable=False),
        sql.Column("body", sql.String, nullable=False),
        sql.Column("severity", sql.String, nullable=False),
        sql.Column("since", sql.DateTime, nullable=False),
        sql.Column("due_at", sql.DateTime, nullable=False),
        sql.Column("attempts", sql.Integer, nullable=False),
        sql.Column("state", sql.String, nullable=False),
    )


def _windows() -> None:
    op.create_table(
        "windows",
        sql.Column("id", sql.Integer, primary_key=True),
        _model(),
        sql.Column("model_version", sql.String, nullable=False),
        sql.Column("start", sql.DateTime, nullable=False),
        sql.Column("end", sql.DateTime, nullable=False),
        sql.Column("state", sql.String, nullable=False),
        sql.Column("reopened_at", sql.DateTime),
        sql.Column("closed_at", sql.DateTime),
        sql.Column("result", sql.String),
    )
    op.create_index("one_a_stretch", "windows", ["registered_model", "model_version", "start"], unique=True)
    op.create_index("windows_by_state", "windows", ["registered_model", "state"])
    op.create_index("windows_by_end", "windows", ["registered_model", "end"])
    op.create_table(
        "members",
        sql.Column("record_id", sql.String, primary_key=True),
        _model(),
        sql.Column("model_version", sql.String, nullable=False),
        sql.Column("asked_at", sql.DateTime, nullable=False),
        sql.Column("window_id", sql.Integer),
        sql.Column("late", sql.Boolean, nullable=False),
        sql.Column("counted", sql.Boolean, nullable=False),
        sql.Column("judge_id", sql.String),
        sql.Column("verdict", sql.String),
    )
    by_window = ["registered_model", "window_id", "model_version", "asked_at", "record_id"]
    op.create_index("members_by_window", "members", by_window)
    op.create_table(
        "side_verdicts",
        sql.Column("record_id", sql.String, primary_key=True),
        sql.Column("judge_id", sql.String, primary_key=True),
        _model(),
        sql.Column("verdict", sql.String, nullable=False),
    )
    op.create_table(
        "spent",
        sql.Column("id", sql.Integer, primary_key=True),
        _model(),
        sql.Column("at", sql.DateTime, nullable=False),
        sql.Column("judge_id", sql.String, nullable=False),
        sql.Column("requests", sql.Integer, nullable=False),
        sql.Column("prompt_tokens", sql.Integer, nullable=False),
        sql.Column("completion_tokens", sql.Integer, nullable=False),
        sql.Column("usd", sql.Float),
    )
    op.create_index("spent_by_time", "spent", ["registered_model", "at"])
    op.create_table("given_windows", sql.Column("window_id", sql.Integer, primary_key=True, autoincrement=False))
    op.create_table(
        "kept",
        _model(primary_key=True),
        sql.Column("name", sql.String, primary_key=True),
        sql.Column("value", sql.String, nullable=False),
    )


def _actions() -> None:
    op.create_table(
        "actions",
        sql.Column("id", sql.Integer, primary_key=True),
        _model(),
        sql.Column("at", sql.DateTime, nullable=False),
        sql.Column("kind", sql.String, nullable=False),
        sql.Column("version", sql.String, nullable=False),
        sql.Column("subject", sql.String, nullable=False),
        sql.Column("why", sql.String, nullable=False),
    )
    op.create_table(
        "replays",
        _model(primary_key=True),
        sql.Column("record_id", sql.String, primary_key=True),
        sql.Column("model_version", sql.String, primary_key=True),
        sql.Column("judge_id", sql.String, primary_key=True),
        sql.Column("verdict", sql.String, nullable=False),
    )
    op.create_table(
        "canary_looks",
        sql.Column("id", sql.Integer, primary_key=True),
        _model(),
        sql.Column("model_version", sql.String, nullable=False),
        sql.Column("promoted_at", sql.DateTime, nullable=False),
        sql.Column("evidence", sql.String, nullable=False),
    )
