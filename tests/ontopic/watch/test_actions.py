"""What the automatic loop did, and when it may act again."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from loopback import ROOT

from ontopic.config.watch_settings import WatchSettings
from ontopic.records import Verdict
from ontopic.registry.promotion_record import EntryKind, PromotionRecord
from ontopic.registry.promotions import Promotion
from ontopic.watch.actions import Action, ActionStore, free_at

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WATCH = WatchSettings(cooldown=HOUR)
LIGHT = "ontopic.monitoring.windows, ontopic.monitoring.window, ontopic.monitoring.alerts, ontopic.watch.actions"
HEAVY = {"torch", "transformers", "sklearn", "scipy", "pandas", "evidently", "mlflow", "zenml"}


def action(kind: str, hours: float) -> Action:
    return Action.model_validate(
        {"at": NOON + hours * HOUR, "kind": kind, "version": "2", "subject": "w1", "why": "because"}
    )


def test_actions_come_back_in_their_order_the_oldest_first(tables_at: Path | str) -> None:
    done = [action("retraining", 0), action("refused", 1), action("promoted", 2)]
    with ActionStore(tables_at, "ontopic-banking") as store:
        for each in done:
            store.add(each)
        assert store.newest() == done
        assert store.newest(2) == done[1:]
    with ActionStore(tables_at, "ontopic-travel") as store:
        assert store.newest() == []


def test_a_later_verdict_on_a_predecessors_answer_stands(tables_at: Path | str) -> None:
    said = [Verdict(outcome=outcome, score=0.5, explanation="", judge_id="j") for outcome in ("pass", "fail")]
    with ActionStore(tables_at, "ontopic-banking") as store:
        for verdict in said:
            store.add_replays(["a", "b"], "1", verdicts=[verdict] * 2)
        assert store.replayed(["b", "none"], "1", judge_id="j") == {"b": said[1]}
        assert (store.forget(["a"]), store.forget(["a"])) == (1, 0)


def test_the_cool_down_counts_from_the_last_outcome_or_promotion() -> None:
    promotion = Promotion(at=NOON + 2 * HOUR, version="2", before="1", by="ann", why="better")
    assert free_at(WATCH, [], history=[]) is None
    assert free_at(WATCH, [action("retraining", 5), action("would_retrain", 6)], history=[]) is None
    assert free_at(WATCH, [action("refused", 1), action("retraining", 5)], history=[]) == NOON + 2 * HOUR
    assert free_at(WATCH, [action("refused", 1)], history=[promotion]) == NOON + 3 * HOUR
    assert free_at(WATCH, [action("rolled_back", 4)], history=[promotion]) == NOON + 5 * HOUR
    assert free_at(WATCH, [action("waiting", 1)], history=[]) == NOON + 2 * HOUR


def test_the_cool_down_counts_from_a_rejection_or_an_expiry_too(tmp_path: Path) -> None:
    record = PromotionRecord(tmp_path / "promotions.jsonl")
    kinds: list[EntryKind] = ["gate", "rejection", "expiry", "approval", "gate"]
    for hours, kind in enumerate(kinds):
        record.add(kind, "m", version="2", by="ann", why="", facts={}, at=NOON + hours * HOUR)
    for n, free in ((1, None), (2, 2), (3, 3), (5, 3)):
        found = free_at(WATCH, [], history=[], record=record.entries("m")[:n])
        assert found == (None if free is None else NOON + free * HOUR)


def test_who_only_reads_what_happened_need_not_wait_for_heavy_imports() -> None:
    program = f"import sys, {LIGHT}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    imported = set(done.stdout.split())
    assert "ontopic" in imported
    assert imported & HEAVY == set()
