"""What `traffic erase` and `traffic prune` take, in time and memory, in a small store and in one of ten times its size.

    python benchmarks/erasure.py [--conversations 10000] [--turns 10]

In the state folder are, besides the traffic, a table and a log that hold all questions. Erased is one user of one
conversation, then the older half of all traffic expires. Memory is the process's peak.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ontopic.records import Message, Record
from ontopic.state.workspace import Workspace
from ontopic.traffic.identity import user_hash
from ontopic.traffic.store import TrafficStore

ROOT = Path(__file__).resolve().parents[1]
WORDS = [f"word{i}" for i in range(5000)]
BATCH = 2000


def records(conversations: int, turns: int, key: Path) -> Iterator[Record]:
    """Conversations of which each turn repeats what was said before it."""
    random.seed(0)
    start = datetime.now(UTC) - timedelta(days=100)
    for number in range(conversations):
        said = [Message(role="system", content="You help a bank's customers.")]
        for turn in range(turns):
            question, answer = (" ".join(random.choices(WORDS, k=12)) for _ in range(2))
            said.append(Message(role="user", content=question))
            yield Record(
                id=f"{number}-{turn}",
                question=question,
                answer=answer,
                messages=tuple(said),
                conversation=f"talk-{number}",
                user=user_hash(f"user {number}", key),
                registered_model="ontopic-banking",
                asked_at=start + timedelta(days=99 * number / conversations, seconds=turn),
            )
            said.append(Message(role="assistant", content=answer))


def fill(root: Path, conversations: int, turns: int) -> None:
    workspace = Workspace(root=root)
    batch: list[Record] = []
    with TrafficStore(root / "traffic.db", redacted=False) as store, (root / "questions.jsonl").open("w") as table:
        for record in records(conversations, turns, workspace.user_key):
            batch.append(record)
            table.write(json.dumps({"question": record.question}) + "\n")
            if len(batch) == BATCH:
                store.add_many(batch)
                batch = []
        store.add_many(batch)


def run(root: Path, *arguments: str) -> tuple[float, float]:
    """Seconds and peak MiB of a command."""
    started = time.perf_counter()
    command = [sys.executable, str(ROOT / "run.py"), "traffic", *arguments, "--state", str(root)]
    pid = os.posix_spawn(sys.executable, command, dict(os.environ))
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{arguments} failed")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--conversations", type=int, default=10_000)
    options.add_argument("--turns", type=int, default=10)
    given = options.parse_args()
    for conversations in (given.conversations // 10, given.conversations):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            fill(root, conversations, given.turns)
            size = (root / "traffic.db").stat().st_size / 2**20
            print(f"{conversations * given.turns:,} records in {conversations:,} conversations, {size:.0f} MiB")
            for what, arguments in (
                ("erase a user", ("erase", "--user", "user 7", "--yes")),
                ("half expires", ("prune", "--keep", str(conversations * given.turns // 2))),
            ):
                seconds, peak = run(root, *arguments)
                print(f"  {what}: {seconds:.1f} s, {peak:.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
