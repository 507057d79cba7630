"""Every move of the champion's alias is on record before it is made, whoever makes it and however it ends."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from registries import NAME, made_registry, move_alias

from ontopic.registry.mlflow_file import FileTables
from ontopic.registry.promotion_record import Entry, PromotionRecord
from ontopic.registry.promotions import ModelRegistry, of_gate

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    """Version 1 is the champion."""
    registry = made_registry(tmp_path)
    registry.ensure_champion("1")
    return registry


def gate(registry: ModelRegistry, version: str, outcome: str, against: str = "1") -> Entry:
    facts = {"gate": outcome, "against": against}
    return registry.enter("gate", version, by="the loop", why=outcome, facts=facts)


def last(registry: ModelRegistry) -> Entry:
    return registry.record.entries(NAME)[-1]


def test_the_first_champion_is_on_record_and_no_override(registry: ModelRegistry) -> None:
    (entry,) = registry.record.entries()
    assert (entry.kind, entry.version, entry.by) == ("promotion", "1", "the loop")
    assert entry.facts == {
        "before": "",
        "by_hand": False,
        "gate": "not run",
        "gate_against": "",
        "gate_entry": None,
        "override": False,
    }
    registry.ensure_champion("1")
    assert len(registry.record.entries()) == 1


@pytest.mark.parametrize(
    ("outcome", "against", "override"),
    [("failed", "1", True), ("passed", "1", False), ("passed", "3", True), (None, "", True)],
)
def test_a_hand_move_says_what_its_gate_said(
    registry: ModelRegistry, outcome: str | None, against: str, override: bool
) -> None:
    entered = gate(registry, "2", outcome, against) if outcome else None
    done = registry.promote("2", by="mallory", why="nicer to talk to")
    entry = last(registry)
    assert (entry.kind, entry.version, entry.by, entry.why) == ("promotion", "2", "mallory", "nicer to talk to")
    expected: dict[str, Any] = {"before": "1", "by_hand": True, "override": override}
    expected |= of_gate(entered) if entered else {"gate": "not run", "gate_against": "", "gate_entry": None}
    assert entry.facts == expected
    assert (done.gate, done.override, done.entry) == (outcome or "not run", override, entry.number)
    assert registry.promotions()[-1] == done


def test_the_gate_that_counts_is_the_last_one_of_the_version(registry: ModelRegistry) -> None:
    gate(registry, "2", "passed")
    failed = gate(registry, "2", "failed")
    gate(registry, "3", "passed")
    registry.promote("2", by="ann", why="")
    assert last(registry).facts["gate_entry"] == failed.number
    assert last(registry).facts["override"] is True


def test_a_gate_of_before_the_record_is_read_from_the_tags(registry: ModelRegistry) -> None:
    registry.tag("2", {"ontopic.gate": "failed", "ontopic.gate.champion": "1"})
    assert registry.promote("2", by="ann", why="").gate == "failed"
    assert last(registry).facts["gate_entry"] is None


def test_a_promotion_by_the_gate_is_no_override_and_names_its_entry(registry: ModelRegistry) -> None:
    entered = gate(registry, "2", "passed")
    registry.promote("2", by="the loop", why="passed", at=NOON, facts={"by_hand": False, **of_gate(entered)})
    assert last(registry).facts["gate_sha256"] == entered.sha256
    assert (last(registry).facts["override"], last(registry).at) == (False, NOON)


def test_an_override_that_the_caller_knows_of_stays_one(registry: ModelRegistry) -> None:
    gate(registry, "2", "passed")
    assert registry.promote("2", by="ann", why="urgent", facts={"override": True}).override


def test_a_rollback_keeps_its_evidence(registry: ModelRegistry) -> None:
    registry.promote("2", by="ann", why="")
    registry.roll_back("the canary", why="worse", at=NOON, facts={"comparison": {"n": 120, "losses": 30}})
    entry = last(registry)
    assert (entry.kind, entry.version, entry.at) == ("rollback", "1", NOON)
    assert entry.facts == {"before": "2", "by_hand": False, "comparison": {"n": 120, "losses": 30}}
    registry.promote("2", by="ann", why="again")
    registry.roll_back("bob", why="it is rude")
    assert last(registry).facts == {"before": "2", "by_hand": True}


class _Killed(FileTables):
    """As where the process is killed before it writes a tag or an alias."""

    before = ""

    def set_tag(self, key: str, value: str) -> None:
        if self.before and key.startswith(self.before):
            raise KeyboardInterrupt
        super().set_tag(key, value)

    def set_alias(self, alias: str, version: str) -> None:
        if alias == self.before:
            raise KeyboardInterrupt
        super().set_alias(alias, version)


@pytest.mark.parametrize("before", ["ontopic.record.head", "ontopic.promotion.", "champion"])
@pytest.mark.parametrize("kind", ["promotion", "rollback"])
def test_a_move_that_was_killed_is_visible_and_finished_when_it_is_made_again(
    registry: ModelRegistry, tmp_path: Path, before: str, kind: str
) -> None:
    tables = _Killed(tmp_path / "mlflow.db", NAME)
    registry = ModelRegistry(NAME, tables, record=registry.record)
    if kind == "rollback":
        registry.promote("2", by="ann", why="better")

    def move() -> object:
        return (
            registry.promote("2", by="ann", why="better")
            if kind == "promotion"
            else registry.roll_back("ann", why="worse")
        )

    was, became = ("1", "2") if kind == "promotion" else ("2", "1")
    _Killed.before = before
    try:
        with pytest.raises(KeyboardInterrupt):
            move()
    finally:
        _Killed.before = ""
    entry = last(registry)
    assert (entry.kind, registry.champion()) == (kind, was)
    on_record = f"on record version {became} is the champion (entry {entry.number}, {kind} by ann)"
    assert registry.off_record() == f"{on_record}, but the alias is on version {was}"
    move()
    assert (registry.champion(), last(registry), registry.off_record()) == (became, entry, "")
    assert registry.promotions()[-1].entry == entry.number
    assert len({promotion.at for promotion in registry.promotions()}) == len(registry.promotions())


def test_the_loop_finishes_a_move_that_was_killed(registry: ModelRegistry, tmp_path: Path) -> None:
    registry.enter("promotion", "2", by="the loop", why="passed", facts={"before": "1", "gate": "passed"})
    registry.ensure_champion("1")
    assert (registry.champion(), registry.off_record()) == ("2", "")
    assert (registry.promotions()[-1].version, registry.promotions()[-1].gate) == ("2", "passed")


def test_the_loop_leaves_an_alias_that_was_moved_by_other_means(registry: ModelRegistry) -> None:
    registry.promote("2", by="ann", why="better")
    move_alias(registry, "1")
    registry.ensure_champion("1")
    assert registry.champion() == "1"
    assert "but the alias is on version 1" in registry.off_record()
    move_alias(registry, "3")
    registry.ensure_champion("1")
    assert registry.champion() == "3"


def test_another_move_after_a_killed_one_is_another_entry(registry: ModelRegistry) -> None:
    registry.enter("promotion", "2", by="ann", why="better", facts={"before": "1"})
    registry.promote("2", by="bob", why="I think so too")
    assert [entry.by for entry in registry.record.entries()] == ["the loop", "ann", "bob"]


def test_a_gate_that_nothing_followed_is_visible(registry: ModelRegistry) -> None:
    entry = gate(registry, "2", "passed")
    said = f"a gate of version 2 is on record (entry {entry.number}), and nothing that followed it"
    assert registry.off_record() == said
    registry.enter("waiting", "2", by="the loop", why="", facts={})
    assert registry.off_record() == ""


def test_who_and_why_are_cut_on_record_as_on_the_registry(registry: ModelRegistry) -> None:
    registry.promote("2", by="a" * 999, why="w" * 9999)
    assert (len(last(registry).by), len(last(registry).why)) == (200, 1000)


def test_two_models_share_a_record_and_none_sees_the_others_moves(registry: ModelRegistry, tmp_path: Path) -> None:
    other = made_registry(tmp_path / "other", name="ontopic-other")
    other.record = PromotionRecord(registry.record.kept.path)
    other.ensure_champion("2")
    registry.promote("2", by="ann", why="")
    assert [entry.number for entry in registry.record.entries(NAME)] == [1, 3]
    assert (registry.off_record(), other.off_record()) == ("", "")
