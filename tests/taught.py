"""A state folder as the loop leaves it: the champion was asked questions of the training split, and judged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from loopback import ROOT
from registries import made_registry

from ontopic.config.policy import load_policy
from ontopic.config.settings import load_settings
from ontopic.data.labelled import load_questions
from ontopic.data.sample import sampled_questions
from ontopic.monitoring.window import WindowResult
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Judged, Record, Verdict
from ontopic.state.workspace import Workspace
from ontopic.statistics.rates import rate
from ontopic.statistics.scores import score
from ontopic.traffic.identity import user_hash
from ontopic.traffic.store import TrafficStore
from ontopic.watch.next_training import asked_sample

NAME = "ontopic-gardening"
POLICY = ROOT / "configs" / "policies" / "gardening.yaml"
LEAK = "kanarie: \x1b[2J the <b>cup</b> went to nobody of note"
ANNAS = 5
"""So many of the questions are Anna's."""


def write_config(folder: Path, sets: Sequence[dict[str, Any]] = (), **training: Any) -> Path:
    """The gardening policy with 30 questions of the loop and a cover of 20."""
    settings = yaml.safe_load((ROOT / "configs" / "gardening.yaml").read_text())
    settings |= {"policy": str(POLICY), "traffic": {"questions": 30, "fresh_questions": 2}}
    settings["training"] |= {"cover": 20, "preference_sets": list(sets)} | training
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder / "config.yaml"


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def made_state(folder: Path) -> Workspace:
    """Version 1 leaks everything; besides the loop's questions it was asked one of the evaluation split."""
    config, policy = write_config(folder), load_policy(POLICY)
    workspace = Workspace(root=folder / "state", mlflow_uri=f"sqlite:///{folder / 'state' / 'mlflow.db'}")
    made_registry(workspace.root, versions="1", name=NAME).ensure_champion("1")
    held_apart = next(q for q in load_questions(policy.questions) if q.split == "evaluation")
    asked = [*sampled_questions(asked_sample(load_settings(config), policy)), held_apart]
    user, noon = user_hash("anna", workspace.user_key), datetime(2026, 3, 1, 12, tzinfo=UTC)
    records = [
        Record(
            question=question.question,
            answer=f"{LEAK} {number}.",
            id=f"asked-{number}",
            registered_model=NAME,
            model_version="1",
            asked_at=noon + timedelta(seconds=number),
            user=user if number < ANNAS else "",
        )
        for number, question in enumerate(asked)
    ]
    verdicts = [
        Verdict(
            outcome="pass" if question.in_scope else "fail",
            score=0.5,
            explanation="",
            judge_id="j",
            in_scope=question.in_scope,
            declined=False,
        )
        for question in asked
    ]
    judged = Judged(records=records, verdicts=verdicts)
    with TrafficStore(workspace.traffic, NAME) as traffic, WindowStore(workspace.windows, NAME) as windows:
        traffic.add_many(records)
        windows.put(records, len(records))
        windows.keep_verdicts({r.id: v for r, v in zip(records, verdicts, strict=True)}, "j")
        (window,) = windows.holding([records[0].id])
        windows.close_window(window, _result(judged), now=noon + timedelta(hours=1))
    return workspace


def _result(judged: Judged) -> WindowResult:
    n, scores = len(judged.records), score(judged.verdicts)
    return WindowResult(
        status="detected",
        scores=scores,
        score=rate(1, n),
        threshold=0.85,
        judge_id="j",
        n=n,
        late=0,
        too_late=0,
        sampled=n,
        width=0.1,
        width_unsampled=0.1,
        latency_s=(0.0, 0.0),
        prompt_tokens=0,
        completion_tokens=0,
    )
