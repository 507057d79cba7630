"""Several `python run.py watch` on one database, killed while they judge: one works, and nothing is done twice."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sql
from labelled_judge import right_on_labelled
from led import CLOSINGS, Speaking, closings
from loopback import ROOT, ChatServer
from served import proxy_config

from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Record
from ontopic.state.database import open_state
from ontopic.traffic.store import TrafficStore

MODEL = "ontopic-gardening"
_RECORDS, _MOST_S = 120, 10.0
_AT_ONCE = 64  # requests that are under way when a judge is killed, at the most


def asked(chat_server: ChatServer) -> Counter[int]:
    """How often the judge was asked about each record of the traffic."""
    found: Counter[int] = Counter()
    for prompt in chat_server.prompts():
        if "prune rose " in prompt:
            found[int(prompt.partition("prune rose ")[2].partition("?")[0])] += 1
    return found


@pytest.mark.slow
def test_each_window_is_judged_closed_and_alerted_of_once(
    chat_server: ChatServer, postgres_database: str, tmp_path: Path
) -> None:
    chat_server.reply = right_on_labelled(delay_s=0.2)
    judge = {"kind": "openai", "model": "grader", "base_url": chat_server.url, "concurrency": 4}
    config = proxy_config(tmp_path, chat_server.url, judge=judge)
    start = datetime.now(UTC) - timedelta(hours=1)
    with TrafficStore(postgres_database, MODEL) as traffic:
        traffic.add_many(
            Record(question=f"How do I prune rose {i}?", answer="Buy shares of it.", model_version="gpt-4o").model_copy(
                update={"asked_at": start + timedelta(seconds=i)}
            )
            for i in range(_RECORDS)
        )
    with open_state(postgres_database).begin() as connection:
        connection.execute(sql.text(CLOSINGS))

    def started(number: int) -> Speaking:
        given = ["--since", "1d", "--every", "0.2", "--config", str(config), "--state", str(tmp_path / f"m{number}")]
        program = [sys.executable, str(ROOT / "run.py"), "watch", *given]
        return Speaking(program, {"ONTOPIC_STATE_URL": postgres_database, "OPENAI_API_KEY": "none"})

    watches = [started(0)]
    try:
        watches[0].until("This process works on", timeout_s=240)
        for number in (1, 2):
            watches.append(started(number))
            watches[-1].until("Standing by", timeout_s=240)
            while len(asked(chat_server)) < number * _RECORDS // 3:  # it judges
                assert watches[-2].process.poll() is None, watches[-2].all
            killed = watches[-2].kill()
            assert watches[-1].until("This process works on") - killed < _MOST_S
        watches[-1].until("; 0 wait, ", timeout_s=240)  # how many it closed itself hangs on when the others died
    finally:
        for each in watches:
            each.process.kill()
    assert [state for _, state in closings(postgres_database)] == ["closed", "closed"]
    with WindowStore(postgres_database, MODEL) as windows:
        assert [w.result.status for w in windows.closed(-1) if w.result] == ["detected"] * 2
    with Alerts(postgres_database, [], policy="gardening") as alerts:
        assert {alert.rule for alert in alerts.history(9)} == {alert.rule for alert in alerts.history(9)}
        assert len({alert.rule for alert in alerts.history(9)}) == len(alerts.history(9))  # one of each rule
    twice = sum(n - 1 for n in asked(chat_server).values())
    assert len(asked(chat_server)) == _RECORDS and twice <= 2 * _AT_ONCE
    print(f"{twice} of {_RECORDS} records were asked of twice, as their verdicts were under way when a process died")
