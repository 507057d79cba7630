"""What ``keys list`` and ``ask`` print, and how ``serve`` is guarded."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Literal

import pytest
from loopback import ROOT
from rich.console import Console

from ontopic.commands.options import Project
from ontopic.config.policy import Policy
from ontopic.config.settings import load_settings
from ontopic.records import Verdict
from ontopic.state.workspace import Workspace
from serving.commands import guarding_of, keys_table, said
from serving.guarding import Guarding
from serving.keys import Key

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def test_the_columns_of_the_keys_stand_apart_in_80_columns() -> None:
    key = Key(
        sha256="a",
        name="frontend",
        prefix="ot-abcdef12",
        requests_per_minute=100_000,
        tokens_per_minute=1_000_000_000,
        made_at=NOW,
        expires_at=None,
        revoked_at=None,
    )
    out = StringIO()
    Console(file=out, width=80).print(keys_table([key], NOW))
    header, _, row = [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]
    assert "2026-11-26  never" in row
    assert "frontend" in row
    assert header.index("expires") == row.index("never")


@pytest.mark.parametrize(
    ("outcome", "score", "expected"),
    [
        ("pass", 0.97, "pass; on topic: yes, score 0.97 (truth is not judged). So it is."),
        ("fail", None, "fail; on topic: no (truth is not judged). So it is."),
        ("unjudged", None, "unjudged: the server is down"),
    ],
)
def test_a_verdict_says_that_truth_is_not_judged(
    outcome: Literal["pass", "fail", "unjudged"], score: float | None, expected: str
) -> None:
    cause = "the server is down" if outcome == "unjudged" else None
    explanation = "" if cause else "So it is."
    verdict = Verdict(outcome=outcome, score=score, explanation=explanation, judge_id="j", cause=cause)
    assert said(verdict) == expected


def test_a_guard_that_only_watches_needs_a_card_that_is_there(
    tmp_path: Path, banking: Policy, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load_settings(ROOT / "configs/local.yaml")
    project = Project(settings, banking, Workspace(root=tmp_path))
    assert settings.guard == "observe"
    assert guarding_of(project) is None
    assert "python run.py calibrate" in capsys.readouterr().err
    card = project.workspace.guard(banking.registered_model)
    card.parent.mkdir()
    card.write_text("{}")
    assert guarding_of(project) == Guarding(mode="observe", card=card)
    off = settings.model_copy(update={"serving": settings.serving.model_copy(update={"guard": "off"})})
    assert guarding_of(Project(off, banking, project.workspace)) is None


def test_only_a_local_judge_is_watched_by_a_guard_by_itself_and_only_an_enforced_one_is_in_the_gate() -> None:
    settings = load_settings(ROOT / "configs/gpu.yaml")
    assert (settings.guard, settings.judge_choice.guard_budget) == ("off", None)
    local = load_settings(ROOT / "configs/local.yaml")
    assert local.judge_choice.guard_budget is None
    enforced = local.model_copy(update={"serving": local.serving.model_copy(update={"guard": "enforce"})})
    assert enforced.judge_choice.guard_budget == local.serving.guard_budget
