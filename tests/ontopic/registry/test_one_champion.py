"""Two processes, on one machine or on two that share the state, move the champion: the record tells one story."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from registries import NAME, made_registry

from ontopic.errors import UserError
from ontopic.registry.promotion_record import PromotionRecord
from ontopic.registry.promotions import CHAMPION, ModelRegistry
from ontopic.registry.record_check import check_record
from ontopic.state.workspace import Workspace

GATED = {"by_hand": False, "gate": "passed", "gate_against": "1"}


@pytest.fixture
def machines(anywhere: Workspace, tmp_path: Path) -> tuple[ModelRegistry, ModelRegistry]:
    """The registered model as two processes have it, with version 1 as the champion."""
    one = made_registry(anywhere.root)
    one.ensure_champion("1")
    root = anywhere.root if anywhere.state_url is None else tmp_path / "another machine"
    return one, ModelRegistry(NAME, one._tables, record=PromotionRecord.of(Workspace(root=root)))


def test_of_two_gates_against_one_champion_one_promotes(
    anywhere: Workspace, machines: tuple[ModelRegistry, ModelRegistry]
) -> None:
    refused: list[str] = []
    ready = threading.Barrier(2)

    def promote(registry: ModelRegistry, version: str) -> None:
        ready.wait()
        try:
            registry.promote(version, by="the loop", why="", facts=GATED)
        except UserError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=promote, args=each) for each in zip(machines, ("2", "3"), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (why,) = refused
    assert "passed its gate against version 1, and the champion is version" in why
    one = machines[0]
    entries = one.record.entries()
    assert [entry.kind for entry in entries] == ["promotion", "promotion"]
    assert one.champion() == entries[-1].version
    assert check_record(one.record, workspace=anywhere, registries=[one]).faults == []


def test_killed_before_the_alias_another_process_completes_the_move(
    machines: tuple[ModelRegistry, ModelRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = machines

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(type(one._tables), "set_tag", killed)  # all that is left behind is the entry
        with pytest.raises(KeyboardInterrupt):
            one.promote("2", by="the loop", why="", facts=GATED)
    assert one.champion() == "1" and "on record version 2 is the champion" in other.off_record()
    other.ensure_champion("1")
    assert one.champion() == "2" and other.off_record() == ""
    assert [entry.version for entry in other.record.entries()] == ["1", "2"]


def test_cut_off_meanwhile_it_moves_no_alias(
    machines: tuple[ModelRegistry, ModelRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = machines
    set_alias, tables = type(one._tables).set_alias, one._tables
    moving, first = ModelRegistry._made, [True]

    def slow(self: ModelRegistry, entry: object) -> object:
        """Another process promotes between the entry and the alias, as if the lock had been lost."""
        if first.pop():
            other.record.add("promotion", NAME, version="3", by="eve", why="", facts={"before": "1"})
            set_alias(tables, CHAMPION, "3")
        return moving(self, entry)  # type: ignore[arg-type]

    monkeypatch.setattr(ModelRegistry, "_made", slow)
    with pytest.raises(UserError, match="another process has moved the champion"):
        one.promote("2", by="the loop", why="", facts=GATED)
    assert one.champion() == "3" and other.off_record() == ""
