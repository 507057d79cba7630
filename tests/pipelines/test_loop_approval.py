"""The loop where a person must approve what passed the gate."""

from __future__ import annotations

from pathlib import Path

import pytest
from loops import LENIENT, NAME, new_state, run, write_config

from ontopic.registry.promotion_record import PromotionRecord


@pytest.mark.slow
def test_what_passes_waits_until_it_is_approved(model_folder: Path, tmp_path: Path) -> None:
    state = new_state(tmp_path, model_folder)
    alerts = [{"name": "to sign", "events": ["waiting"]}]
    config = write_config(tmp_path, LENIENT, promotion={"approval": "one"}, alerts=alerts)
    first = run(state, config=config, USER="ann", LOGNAME="ann")
    assert first.code == 0, first.err
    waits = (
        "version 2 passed the gate against version 1 and waits for one person who did not train it to approve it until"
    )
    assert f"Waits: {waits}" in first.out
    assert "is the champion now" not in first.out
    assert "to sign" in run(state, "alerts", config=config).out
    entries = PromotionRecord(state / "promotions.jsonl").entries(NAME)
    gate, waiting = [entry for entry in entries if entry.kind in ("gate", "waiting")]
    assert waiting.facts["gate_sha256"] == gate.sha256
    assert waiting.facts["trained_by"] == ["ann"]

    second = run(state, config=config)
    assert second.code == 0, second.err
    assert "Nothing was trained while a challenger waits or is rolled out." in second.out
    assert waits in second.out

    alone = run(state, "approve", "2", "--why", "mine", config=config, USER="ann", LOGNAME="ann")
    assert alone.err == "error: ann trained version 2 and cannot be its only approver; another person must approve it\n"
    done = run(state, "approve", "2", "--why", "read the page", "--by", "bob", config=config)
    assert done.out == "version 2 is the champion in place of 1, approved by bob\n", done.err
    assert "promoted" in run(state, "status", config=config).out
