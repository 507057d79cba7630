"""Conversations in the traffic store: its size against the texts, and what windows, export and deletion take in memory.

The texts are as long as those of LMSYS-Chat-1M (Zheng et al., arXiv 2309.11998, table 1): 69.5 tokens a question, 214.5
an answer, at 4 characters a token; lengths are drawn from a log-normal. Turns of many conversations are interleaved, as
traffic is. A turn is a question and its answer. The size of the texts counts each of them once, in UTF-8.

    python benchmarks/conversations.py [--conversations 100000] [--turns 10] [--store URL] [--question 278 --answer 858]
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import sqlalchemy as sql

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ontopic.monitoring.window import Cut
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Message, Parameters, Record
from ontopic.traffic.files import export_traffic
from ontopic.traffic.store import TrafficStore

MODEL = "ontopic-banking"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PROMPT = "You are the assistant of a bank. You answer questions on banking and decline all others. " * 5
WORDS = ("account", "card", "transfer", "limit", "the", "a", "my", "of", "for", "open", "fee", "rate", "how", "please")
AT_ONCE = 1000  # conversations that go on at the same time
BATCH = 2000
PARAMETERS = Parameters(max_tokens=512, temperature=0.2)


def text(random_: random.Random, characters: float) -> str:
    """Words of that many characters on average, at least one word."""
    length = random_.lognormvariate(math.log(characters) - 0.5, 1.0)
    return " ".join(random_.choices(WORDS, k=max(1, round(length / 5.2))))


def records(n: int, *, turns: int, question: float, answer: float) -> Iterator[tuple[Record, int]]:
    """The records of ``n`` conversations in order of time, each with the bytes of text that are new in it."""
    random_ = random.Random(0)
    second = 0
    for first in range(0, n, AT_ONCE):
        chats: dict[int, list[Message]] = {
            i: [Message(role="system", content=PROMPT)] for i in range(first, min(n, first + AT_ONCE))
        }
        for turn in range(turns):
            for i, messages in chats.items():
                asked, said = f"{text(random_, question)} {i}?", f"{text(random_, answer)} {turn}."
                messages.append(Message(role="user", content=asked))
                second += 1
                yield (
                    Record(
                        question=asked,
                        answer=said,
                        id=f"{random_.getrandbits(128):032x}",
                        model_version="7",
                        asked_at=NOW - timedelta(days=60) + timedelta(seconds=second, microseconds=second % 999_983),
                        latency_s=random_.random(),
                        prompt_tokens=len(asked) // 4,
                        completion_tokens=len(said) // 4,
                        messages=tuple(messages),
                        parameters=PARAMETERS,
                        conversation=f"{random.Random(i).getrandbits(128):032x}",
                        user=f"{random.Random(i // 3).getrandbits(128):032x}",
                        key="website",
                        metadata={"channel": "web"},
                    ),
                    len(asked.encode()) + len(said.encode()),
                )
                messages.append(Message(role="assistant", content=said))


def fill(where: Path | str, options: argparse.Namespace) -> int:
    """Store them; returns the bytes of their texts."""
    made = records(options.conversations, turns=options.turns, question=options.question, answer=options.answer)
    texts = len(PROMPT.encode())
    with TrafficStore(where, MODEL, redacted=False) as store:
        while batch := list(islice(made, BATCH)):
            texts += sum(size for _, size in batch)
            store.add_many(record for record, _ in batch)
    return texts


def size_of(where: Path | str) -> int:
    """Bytes on the disk: of the file, or of the tables with their indexes."""
    if isinstance(where, Path):
        with sql.create_engine(f"sqlite:///{where}").connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return where.stat().st_size
    with sql.create_engine(where.replace("postgresql:", "postgresql+psycopg:")).connect() as connection:
        query = "SELECT sum(pg_total_relation_size(c)) FROM unnest(ARRAY['traffic', 'origin', 'prompt']) AS c"
        return int(connection.execute(sql.text(query)).scalar_one())


def cut_windows(where: Path | str, folder: Path) -> str:
    """Take all traffic into windows of a day, as ``watch`` does, and read one of them."""
    cut = Cut(length=timedelta(days=1), records=1, lateness=timedelta(0))
    with TrafficStore(where, MODEL) as traffic, WindowStore(folder / "windows.db", MODEL) as windows:
        taken = windows.take_in(traffic, cut, now=NOW)
        due = windows.due(cut, NOW)
        read = max((len(traffic.records(windows.ids(window)[:1000])) for window in due), default=0)
    return f"{taken:,} records in {len(due)} windows, {read:,} of one read"


def export(where: Path | str, folder: Path) -> str:
    """Write all to JSONL."""
    with TrafficStore(where, MODEL) as traffic:
        return f"{export_traffic(traffic, folder / 'out.jsonl'):,} records"


def erase(where: Path | str, folder: Path) -> str:
    """Take out one user's conversations, then the older half of all records, then the rest."""
    with TrafficStore(where, MODEL) as traffic:
        n = traffic.erase(traffic.ids(user=f"{random.Random(0).getrandbits(128):032x}"))
        half = traffic.prune(keep=traffic.count() // 2)
        rest = traffic.prune(keep=0)
    return f"{n:,} of one user, {half:,} older ones, {rest:,} others"


def measured(work: Callable[[Path | str, Path], str], where: Path | str, folder: Path) -> None:
    """Do it in a process of its own; print how long it takes and what memory it adds."""
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        said, mib = pool.apply(with_memory, (work, where, folder))
    print(f"{work.__name__:12} {time.perf_counter() - start:7.1f} s {mib:6.0f} MiB more   {said}", flush=True)


def with_memory(work: Callable[[Path | str, Path], str], where: Path | str, folder: Path) -> tuple[str, float]:
    """What it says, and by how many MiB the process's peak grew."""
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is there now
    before = _peak()
    said = work(where, folder)
    return said, _peak() - before


def _peak() -> float:
    """The most memory that this process had, in MiB; getrusage's begins with its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    """Fill a store, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--store", help="the URL of an empty PostgreSQL database; a temporary file where none is given")
    parser.add_argument("--question", type=float, default=69.5 * 4, help="characters on average")
    parser.add_argument("--answer", type=float, default=214.5 * 4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where: Path | str = options.store or Path(folder) / "traffic.db"
        start = time.perf_counter()
        texts, n = fill(where, options), options.conversations * options.turns
        print(f"{options.conversations:,} conversations, {n:,} records stored in {time.perf_counter() - start:.1f} s")
        size = size_of(where)
        print(
            f"store {size:,} bytes, texts {texts:,}: {size / texts:.3f} times ({(size - texts) / n:.0f} bytes a record)"
        )
        for work in (cut_windows, export, erase):
            measured(work, where, Path(folder))


if __name__ == "__main__":
    main()
