"""Descriptions in MLflow: why the champion is champion, kept up to date, and inert whatever was written in a reason."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from registries import NAME, made_registry

from ontopic.registry.descriptions import describe
from ontopic.registry.promotions import ModelRegistry

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script> [x](javascript:alert(1)) ![y](https://evil.example/p.png) | # **b** \u202e\n- item"
DECISION = {
    "champion": {"guardrail_score": {"value": 0.384, "low": 0.35, "high": 0.42, "n": 718}, "unjudged": 2},
    "challenger": {"guardrail_score": {"value": 0.879, "low": 0.853, "high": 0.901, "n": 718}, "unjudged": 0},
    "comparison": {"difference": 0.495, "low": 0.454, "high": 0.535, "n": 709, "wins": 369, "losses": 18},
    "tests": [{"name": "t", "passed": True, "description": f"Guardrail score is at least 0.8 {HOSTILE}"}],
}


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    registry = made_registry(tmp_path)
    registry.promote("1", by="the loop", why="the base model", at=NOON.replace(hour=9))
    facts = {"gate": "passed", "against": "1", "questions": {"n": 720}, "decision": DECISION}
    registry.enter("gate", "2", by="the loop", why="passed against version 1", facts=facts, at=NOON)
    registry.promote("2", by="ann", why="passed the gate", at=NOON, facts={"by_hand": False})
    return registry


def said(registry: ModelRegistry, version: str = "") -> str:
    table, only = ("model_versions", f" AND version = {version}") if version else ("registered_models", "")
    with closing(sqlite3.connect(registry.record.kept.path.parent / "mlflow.db")) as database:
        row = database.execute(f"SELECT description FROM {table} WHERE name = ?{only}", (NAME,)).fetchone()  # noqa: S608
    return str(row[0])


def test_the_registered_model_says_why_its_champion_is_champion(registry: ModelRegistry) -> None:
    text = said(registry)
    assert text.startswith("**Version 2 is the champion** since 2026-03-01 12:00 UTC: promoted by ann in the place of")
    assert "| guardrail score | 0.879 \\[0.853, 0.901\\] (n=718) | 0.384 \\[0.350, 0.420\\] (n=718) |" in text
    assert "- 2026-03-01 12:00 UTC: version 2" in text and "- 2026-03-01 09:00 UTC: version 1; promoted by" in text


def test_before_any_promotion_nothing_is_claimed(tmp_path: Path) -> None:
    registry = made_registry(tmp_path)
    describe(registry, "1")
    assert (said(registry), said(registry, "1").split("\n")[0]) == (
        "No version is the champion yet.",
        "**Never the champion.**",
    )


def test_each_version_says_its_standing_and_its_gate(registry: ModelRegistry) -> None:
    assert said(registry, "2").startswith("**Champion since 2026-03-01 12:00 UTC**")
    assert "720 held-out questions" in said(registry, "2") and "only this one passed 369" in said(registry, "2")
    assert "when version 2 took its place" in said(registry, "1")
    describe(registry, "3", "77")
    assert said(registry, "3").startswith("**Never the champion.**")


def test_a_rollback_is_described_at_once(registry: ModelRegistry) -> None:
    registry.roll_back("bob", why="worse", at=NOON.replace(hour=14))
    assert said(registry).startswith("**Version 1 is the champion** since 2026-03-01 14:00 UTC: rolled back to by bob")
    assert "until 2026-03-01 14:00 UTC, when version 1 took its place" in said(registry, "2")


def test_what_others_wrote_is_only_read(registry: ModelRegistry) -> None:
    registry.promote("3", by=HOSTILE[:100], why=HOSTILE, at=NOON.replace(hour=15))
    for text in (said(registry), said(registry, "2"), said(registry, "3")):
        assert "<script" not in text and "https://" not in text and "\u202e" not in text
        assert not re.search(r"(?<!\\)\]\s*\(", text)  # a link, for which MLflow takes a space too


def test_it_is_never_longer_than_mlflow_takes(registry: ModelRegistry) -> None:
    for hour in range(10):
        registry.promote("13"[hour % 2], by="ann", why="x" * 990, at=NOON.replace(day=2, hour=hour))
    assert 1000 < len(said(registry)) <= 5000
