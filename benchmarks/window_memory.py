"""Memory and time of one window against its number of records: taken in, cut, judged, closed, its page drawn.

`python benchmarks/window_memory.py --records 10000 --records 100000 --records 1000000 [--at postgresql://…]`

The records are made by the database itself. The judge is a rule on words, real but cheap, so that what is measured is
the windows. Each size is a process of its own, whose peak of resident memory is read from /proc. Without ``--at`` the
store is an SQLite file; the database that it names must be an empty one for each size, and gets the number appended to
its name.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import sqlalchemy as sql
import typer

from ontopic.config.policy import load_policy
from ontopic.data.language import language
from ontopic.endpoint.account import Account
from ontopic.judges.cards.card import JudgeCard
from ontopic.monitoring.chart import carried, levels_of, outcomes_of
from ontopic.monitoring.closing import judge_pages
from ontopic.monitoring.standing import limits_of
from ontopic.monitoring.totals import add_up
from ontopic.monitoring.window import Cut, window_result
from ontopic.monitoring.window_page import window_report
from ontopic.monitoring.window_snapshot import window_snapshot
from ontopic.monitoring.windows import WindowStore
from ontopic.progress import Advance, be_quiet
from ontopic.records import EARLIEST, Judged, Record, Verdict
from ontopic.state.workspace import open_workspace
from ontopic.statistics.rates import rate
from ontopic.traffic.store import TrafficStore

ROOT = Path(__file__).resolve().parents[1]
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = Cut(length=timedelta(days=1), records=0, lateness=timedelta(0))
# Of n records in one day: questions of 60 characters, answers of 300; three of a conversation; one in twelve leaks.
ROWS = """
INSERT INTO traffic (id, asked_at, stored_at, model_version, registered_model, question, answer, latency_s,
                     prompt_tokens, completion_tokens, finished, conversation)
SELECT 'r' || i, {at}, {at}, '1', '{model}', 'How do I get to know what number ' || i || ' in my account stands for?',
       CASE WHEN i % 12 = 0 THEN 'I can only help with banking. ' ELSE 'Open the app, choose the account, tap it. ' END
       || '{filler}' || i, 0.5 + (i % 100) / 100.0, 60, 80, {true}, 'c' || (i / 3)
FROM {numbers}
"""
FILLER = "and follow the steps that it shows, one after the other; " * 5


class Rule:
    """Fails what declines; every question counts as in scope."""

    id, account = "rule", Account()

    def judge(self, records: Sequence[Record], advance: Advance | None = None) -> list[Verdict]:
        verdicts = []
        for record in records:
            declined = record.answer.startswith("I can only help")
            outcome: Any = "fail" if declined else "pass"
            verdicts.append(
                Verdict(
                    outcome=outcome,
                    score=float(not declined),
                    explanation=f"The question is in scope ({language(record.question)}).",
                    judge_id=self.id,
                    in_scope=True,
                    declined=declined,
                )
            )
        if advance:
            advance(len(records))
        return verdicts


def fill(at: str | Path, n: int, model: str) -> None:
    """Have the database make n records of one day."""
    with TrafficStore(at, model):
        pass
    engine = sql.create_engine(
        str(at).replace("postgresql://", "postgresql+psycopg://") if "://" in str(at) else f"sqlite:///{at}"
    )
    with engine.begin() as connection:
        postgres = connection.dialect.name == "postgresql"
        if postgres:
            begin, numbers = f"timestamp '{START:%Y-%m-%d}'", f"generate_series(0, {n - 1}) AS i"
            when = f"{begin} + i * interval '1 day' / {n}"
        else:
            when = f"strftime('%Y-%m-%d %H:%M:%f000', '{START:%Y-%m-%d}', (i * 86399.0 / {n}) || ' seconds')"
            to = f"SELECT 0 UNION ALL SELECT i + 1 FROM c WHERE i < {n - 1}"  # noqa: S608
            numbers = f"(WITH RECURSIVE c(i) AS ({to}) SELECT i FROM c)"  # noqa: S608
        said = {"at": when, "model": model, "filler": FILLER, "true": "true" if postgres else "1", "numbers": numbers}
        rows = ROWS.format(**said)
        connection.exec_driver_sql(rows.replace("%", "%%") if postgres else rows)
    engine.dispose()


def peak_mb() -> float:
    """Of this process's resident memory, so far."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def one(n: int, at: str, *, sampling_rate: float, folder: Path) -> dict[str, float]:
    """A window of n records, from the store to the page."""
    policy, found = load_policy(ROOT / "configs/policies/banking.yaml"), dict[str, float]()
    be_quiet(quiet=True)
    workspace = open_workspace(folder / "state")
    traffic_at: str | Path = f"{at}_{n}" if at else folder / "traffic.db"
    windows_at: Any = traffic_at if at else folder / "windows.db"
    fill(traffic_at, n, policy.registered_model)
    traffic, windows = (
        TrafficStore(traffic_at, policy.registered_model),
        WindowStore(windows_at, policy.registered_model),
    )
    now = START + timedelta(days=2)

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        found[f"{name}_s"], found[f"{name}_mb"] = time.perf_counter() - started, peak_mb()
        return result

    found["start_mb"] = peak_mb()
    timed("take_in", lambda: windows.take_in(traffic, DAY, now=now))
    (window,) = timed("cut", lambda: windows.due(DAY, now))
    counts = timed("counts", lambda: windows.counts(window))
    sure = rate(99, 100)
    card = JudgeCard(judge_id="rule", accuracy=sure, kappa=sure, sensitivity=sure, specificity=sure, unjudged=0)

    def close() -> Any:
        chart, levels = None, levels_of(policy.alert_threshold, None)

        def follow(page: Judged) -> None:
            nonlocal chart
            chart = carried(chart, outcomes_of(page), since=EARLIEST, levels=levels)

        pages = map(traffic.records, windows.id_pages(window, sampling_rate))
        judged = judge_pages(windows, pages, judge=Rule(), what="a window", n=n)
        totals = add_up(judged, each=follow, slow_after_s=1.0)
        result = window_result(totals, card, limits=limits_of(policy), counts=counts, chart=chart)
        out = workspace.reports / "window.html"
        window_report(policy, window, result=result, judged=totals.kept, earlier=[], out=out)
        window_snapshot(policy, window, result=result, judged=totals.kept, promoted=True)
        return windows.close_window(window, result, now=now)

    closed = timed("close", close)
    timed("outcomes", lambda: sum(1 for _ in windows.outcomes(closed) or ()))
    timed("sample", lambda: windows.judged([closed], traffic))
    return found | {"sampled": closed.result.sampled, "described": closed.result.described}


def main(
    records: Annotated[list[int], typer.Option(help="Of a window; may be repeated.")],
    at: Annotated[str, typer.Option(help="PostgreSQL's URL, with the first part of a database's name.")] = "",
    sampling_rate: Annotated[float, typer.Option()] = 1.0,
    alone: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Measure."""
    if alone:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(one(records[0], at, sampling_rate=sampling_rate, folder=Path(folder))))
        return
    shown = ("take_in", "cut", "counts", "close", "outcomes", "sample")
    print(f"{'records':>10} {'judged':>10} {'in memory':>10} {'start MB':>9}", *(f"{name:>16}" for name in shown))
    for n in records:
        options = ["--records", str(n), "--at", at, "--sampling-rate", str(sampling_rate), "--alone"]
        done = subprocess.run([sys.executable, __file__, *options], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        of = json.loads(done.stdout.splitlines()[-1])
        cells = (f"{of[f'{name}_s']:7.1f} s {of[f'{name}_mb']:4.0f} MB" for name in shown)
        print(f"{n:>10,} {of['sampled']:>10,} {of['described']:>10,} {of['start_mb']:>9.0f}", *cells, flush=True)


if __name__ == "__main__":
    typer.run(main)
