"""Records a second of `judge --engine ray` with the embedded judge: one worker and two, in turns, each of one thread.

`python benchmarks/judging_ray.py --state .ontopic [--records 1600] [--rounds 3]`

The records are the calibration split's questions with answers, in 16 files, so 16 partitions. Each turn starts Ray
anew and judges all of them; timed is from the first partition that is done to the last, so that the start of Ray and
of its workers, which is the same whatever the work, is left out. The share of the CPUs that others used meanwhile is
printed beside it.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import psutil
import typer

from ontopic.config.policy import load_policy
from ontopic.config.settings import JudgeChoice, LocalJudgeSettings
from ontopic.data.labelled import load_questions
from ontopic.data.partitions import PartitionedFiles
from ontopic.judges.opening import open_judge
from ontopic.judges.ray_engine import Cluster, PackedJudge, judge_with_ray
from ontopic.state.workspace import open_workspace

ROOT = Path(__file__).resolve().parents[1]
PARTITIONS = 16
ANSWER = (
    "Open the app, choose the account and the card, tap Freeze, and confirm with your finger; call us if you can't."
)


def main(
    state: Annotated[Path, typer.Option(help="State folder of an earlier run, for its judge.")] = ROOT / ".ontopic",
    records: Annotated[int, typer.Option()] = 1600,
    rounds: Annotated[int, typer.Option()] = 3,
) -> None:
    """Measure."""
    policy, workspace = load_policy(ROOT / "configs/policies/banking.yaml"), open_workspace(state)
    choice = JudgeChoice(settings=LocalJudgeSettings(kind="local"), prompts=ROOT / "configs/judge_prompts")
    judge = open_judge(choice, policy, workspace=workspace)
    packed = PackedJudge.of(judge, choice, policy=policy, workspace=workspace, travels=False)
    questions = [question.question for question in load_questions(policy.questions, split="calibration")]
    rates: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        source = PartitionedFiles(Path(folder) / "records")
        source.root.mkdir()
        for part in range(PARTITIONS):
            rows = [
                {"question": f"{questions[i % len(questions)]} ({i})", "answer": f"{ANSWER} {i}"}
                for i in range(part, records, PARTITIONS)
            ]
            (source.root / f"{part:02}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for number in range(rounds):
            for workers, found in rates.items():
                done: list[tuple[float, int]] = []
                before, ours = psutil.cpu_times(), os.times()

                def advance(n: int, done: list[tuple[float, int]] = done) -> None:
                    if n:
                        done.append((time.perf_counter(), n))

                judge_with_ray(
                    source,
                    packed,
                    partitions=source.partitions(),
                    out=Path(folder) / f"{number}-{workers}",
                    workspace=workspace,
                    cluster=Cluster("", workers),
                    advance=advance,
                )
                # Of the first partitions of all workers it is not known when they were begun.
                judged = sum(n for _, n in done[workers:])
                found.append(judged / (done[-1][0] - done[workers - 1][0]))
                print(f"{workers} workers: {found[-1]:.0f} records/s; {_others(before, ours)}", flush=True)
    one, two = (statistics.median(found) for found in rates.values())
    print(
        f"median of {rounds}: {one:.0f} records/s with one worker, {two:.0f} with two, {two / one:.2f} times (goal 1.7)"
    )


def _others(before: object, ours: os.times_result) -> str:
    """How busy the machine was, all processes together, ours among them."""
    after, now = psutil.cpu_times(), os.times()
    idle = after.idle - before.idle  # type: ignore[attr-defined]
    wall = now.elapsed - ours.elapsed
    return f"{1 - idle / wall / (psutil.cpu_count() or 1):.0%} of the CPUs busy, load {os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    typer.run(main)
