"""Ten new windows on a store with little and with much history: what monitoring costs follows new traffic.

Both sides in one run, in turns: a store of 1,000 records and one of 1,000,000, all of it watched before. Each round
adds ten windows' records to both and closes them with the embedded judge. `python benchmarks/windows.py`
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from ontopic.config.policy import load_policy
from ontopic.config.settings import JudgeChoice, LocalJudgeSettings
from ontopic.data.labelled import load_questions
from ontopic.judges.cards.calibration import card_of
from ontopic.judges.cards.card import JudgeCard
from ontopic.judges.opening import open_judge
from ontopic.monitoring.closing import judge_records
from ontopic.monitoring.standing import WindowLimits
from ontopic.monitoring.window import Cut, Window, window_result
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Judged, Record
from ontopic.state.workspace import open_workspace
from ontopic.traffic.store import TrafficStore

ROOT = Path(__file__).resolve().parents[1]
START = datetime(2026, 1, 1, tzinfo=UTC)
CUT = Cut(length=None, records=100, lateness=timedelta(0))
MINUTE = timedelta(minutes=1)


def records(first: int, n: int, questions: list[str]) -> Iterator[Record]:
    for i in range(first, first + n):
        question = f"{questions[i % len(questions)]} ({i})"
        yield Record(
            question=question,
            answer=f"Answer {i}: open the app and follow the steps.",
            in_scope=None,
            id=f"r{i}",
            model_version="1",
            asked_at=START + i * MINUTE,
        )


def close(windows: WindowStore, window: Window, judged: Judged, *, card: JudgeCard, now: datetime) -> None:
    """Without page and dashboard."""
    result = window_result(judged, card, limits=WindowLimits(threshold=0.85), counts=windows.counts(window))
    windows.close_window(window, result, now=now)


def main(
    state: Annotated[Path, typer.Option(help="State folder of an earlier run, for its judge.")] = ROOT / ".ontopic",
    history: Annotated[int, typer.Option(help="Records of the large store.")] = 1_000_000,
    rounds: Annotated[int, typer.Option()] = 5,
) -> None:
    """Measure."""
    policy = load_policy(ROOT / "configs/policies/banking.yaml")
    workspace = open_workspace(state)
    judge = open_judge(
        JudgeChoice(settings=LocalJudgeSettings(kind="local"), prompts=ROOT / "configs/judge_prompts"),
        policy,
        workspace=workspace,
    )
    card = card_of(judge, policy, workspace=workspace)
    questions = [question.question for question in load_questions(policy.questions, split="calibration")]
    with tempfile.TemporaryDirectory() as folder:
        sides = {}
        for n in (1000, history):
            traffic = TrafficStore(Path(folder) / f"traffic{n}.db", policy.registered_model)
            windows = WindowStore(Path(folder) / f"windows{n}.db", policy.registered_model)
            started = time.perf_counter()
            for first in range(0, n, 10_000):
                traffic.add_many(records(first, min(10_000, n - first), questions))
            windows.take_in(traffic, CUT, now=START + n * MINUTE)
            # Closed without verdicts: it is history, however it was judged.
            for window in windows.due(CUT, START + n * MINUTE):
                close(windows, window, Judged(records=[], verdicts=[]), card=card, now=START)
            print(f"{n:,} records of history: {time.perf_counter() - started:.0f} s", flush=True)
            sides[n] = (traffic, windows, [])
        # A look reads again what was stored in the minute before, and no bank has 400,000 records in that.
        time.sleep(61)
        for number in range(rounds):
            for n, (traffic, windows, seconds) in sides.items():
                first = n + number * 1000
                traffic.add_many(records(first, 1000, questions))
                now = START + (first + 1000) * MINUTE
                started = time.perf_counter()
                windows.take_in(traffic, CUT, now=now)
                closed = windows.due(CUT, now)
                for window in closed:
                    records_of_it = traffic.records(ids=windows.ids(window))
                    judged = judge_records(windows, records_of_it, judge=judge, what=window.label)
                    close(windows, window, judged, card=card, now=now)
                seconds.append(time.perf_counter() - started)
                if len(closed) != 10:
                    raise RuntimeError(f"{len(closed)} windows were closed")
        small, large = (statistics.median(seconds) for _, _, seconds in sides.values())
        print(f"ten windows of 100 records, median of {rounds}: {small:.2f} s on 1,000, {large:.2f} s on {history:,}")
        print(f"ratio {large / small:.2f} (allowed 1.5)")


if __name__ == "__main__":
    typer.run(main)
