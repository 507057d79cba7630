"""Real processes that lead, killed at each point: another takes over, nothing is lost, and nothing done twice."""

from __future__ import annotations

import json
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from led import CLOSINGS, MODEL, NOON, POINTS, Standby, closings
from loopback import answering

from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.window import Counts, window_result
from ontopic.records import Judged, Record
from ontopic.state.database import open_state
from ontopic.traffic.store import TrafficStore

_MOST_S = 10.0


def prepared(url: str, folder: Path, hours: int) -> None:
    """Traffic of some hours, and what notes each closing of a window."""
    from word_judge import CARD, LIMITS

    result = window_result(Judged(records=[], verdicts=[]), CARD, limits=LIMITS, counts=Counts(n=0, late=0, too_late=0))
    folder.mkdir(exist_ok=True)
    (folder / "result.json").write_text(result.model_dump_json())
    with open_state(url).begin() as connection:
        connection.exec_driver_sql(CLOSINGS)
    with TrafficStore(url, MODEL) as traffic:
        asked = [NOON + timedelta(hours=hour) for hour in range(hours)]
        traffic.add_many([Record(question="q", answer="a", model_version="1", asked_at=at) for at in asked])


def test_the_death_of_who_leads_moves_the_lead_within_ten_seconds(postgres_database: str, tmp_path: Path) -> None:
    prepared(postgres_database, tmp_path, hours=2)
    first = Standby(postgres_database, tmp_path, stops="leads")
    first.until("leads")
    second = Standby(postgres_database, tmp_path)
    try:
        second.until("Standing by: another run or watch works on ontopic-banking (process")
        killed = first.kill()
        assert second.until("leads") - killed < _MOST_S
        second.until("has closed")
        second.until("has closed")
    finally:
        first.process.kill()
        second.process.kill()
    assert [state for _, state in closings(postgres_database)] == ["closed", "closed"]


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS[1:])
def test_wherever_it_is_killed_each_window_is_closed_once_and_each_alert_raised_once(
    postgres_database: str, tmp_path: Path, point: str
) -> None:
    prepared(postgres_database, tmp_path, hours=4)
    got: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["message"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with answering(Handler) as url:
        notify = f"json://{url.removeprefix('http://')}/hook"
        alive = [Standby(postgres_database, tmp_path, notify=notify, stops=point)]
        try:
            alive[0].until(point)
            for _ in range(2):  # killed twice
                alive.append(Standby(postgres_database, tmp_path, notify=notify, stops=point if len(alive) < 2 else ""))
                alive[-1].until("Standing by")
                killed = alive[-2].kill()
                assert alive[-1].until("leads") - killed < _MOST_S
                if len(alive) < 3:
                    alive[-1].until(point)
            alive[-1].until("takes in")
            alive[-1].until("takes in")
            alive[-1].until("takes in")
        finally:
            for each in alive:
                each.process.kill()
    assert closings(postgres_database) == [(i, "closed") for i in sorted({i for i, _ in closings(postgres_database)})]
    assert len(closings(postgres_database)) == 4
    with Alerts(postgres_database, [], policy="banking") as alerts:
        assert [alert.events for alert in alerts.history(9)] == [1] * 4
    # One that was being sent goes out again two minutes later, with its number; the others were sent once.
    assert len(got) == len(set(got)) == 4
