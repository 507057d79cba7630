"""A process that stands by and leads as `watch` does, on a judge and windows that need no model; see ``Standby``.

It says what it does on a line each, and stops at a point until it is killed, where it is told to.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Empty, Queue

import sqlalchemy as sql

from ontopic.state.database import open_state

MODEL = "ontopic-banking"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
POINTS = ("leads", "takes in", "has told", "is closing", "has closed", "is sending")

# Each time that a window's state becomes another one.
CLOSINGS = """
CREATE TABLE closings (id integer, state varchar);
CREATE FUNCTION closes() RETURNS trigger AS $$ BEGIN
  INSERT INTO closings VALUES (new.id, new.state); RETURN new; END $$ LANGUAGE plpgsql;
CREATE TRIGGER closes AFTER UPDATE OF state ON windows FOR EACH ROW EXECUTE FUNCTION closes();
"""


def closings(url: str) -> list[tuple[int, str]]:
    """Which windows became what."""
    with open_state(url).connect() as connection:
        rows = connection.execute(sql.text("SELECT id, state FROM closings ORDER BY id"))
        return [(row.id, row.state) for row in rows]


class Speaking:
    """A process, and what it has said.

    Args:
        program: its command line.
        more: of its environment.
    """

    def __init__(self, program: Sequence[str], more: Mapping[str, str] | None = None) -> None:
        env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONUNBUFFERED": "1"} | (more or {})
        self.process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
        self._said: Queue[str] = Queue()
        self.all: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._said.put(line.strip())

    def until(self, said: str, timeout_s: float = 90) -> float:
        """Wait for a line with these words; returns when it came."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                line = self._said.get(timeout=0.05)
            except Empty:
                continue
            self.all.append(line)
            if said in line:
                return time.monotonic()
        raise AssertionError(f"nothing with {said!r} was said in {timeout_s} s, but {self.all}")

    def kill(self) -> float:
        """As by the kernel, at once; returns when."""
        self.process.kill()
        at = time.monotonic()
        self.process.wait()
        return at


class Standby(Speaking):
    """One that stands by and leads.

    Args:
        stops: one of ``POINTS``.
    """

    def __init__(self, url: str, folder: Path, *, notify: str = "", stops: str = "") -> None:
        super().__init__([sys.executable, __file__, url, str(folder), notify, stops])


def lead(url: str, folder: Path, *, notify: str, stops: str) -> None:
    """Close a window an hour and alert of each, for as long as this process leads."""
    os.environ["ONTOPIC_STATE_URL"] = url
    from ontopic.commands.locking import work_on
    from ontopic.config.alert_settings import AlertSettings
    from ontopic.monitoring import alerts as sending
    from ontopic.monitoring.alerts import Alerts
    from ontopic.monitoring.window import Cut, WindowResult
    from ontopic.monitoring.windows import WindowStore
    from ontopic.state.lead import check_still_leading
    from ontopic.state.workspace import Workspace
    from ontopic.traffic.store import TrafficStore

    workspace, cut = Workspace(root=folder), Cut(length=timedelta(hours=1), records=1, lateness=timedelta(0))
    result = WindowResult.model_validate_json((folder / "result.json").read_text())
    rules = [AlertSettings(name="loop", events=["promoted"], notify=[notify] if notify else [])]

    def say(line: str) -> None:
        print(line, flush=True)
        if stops and line == stops:
            time.sleep(600)

    if stops == "is sending":  # the receiver has it, and nothing says so yet
        really = sending._send
        sending._send = lambda *given, **named: (really(*given, **named), say(stops))[0]  # type: ignore[assignment]

    def work() -> None:
        say("leads")
        with (
            TrafficStore(workspace.traffic, MODEL) as traffic,
            WindowStore(workspace.windows, MODEL) as windows,
            Alerts(workspace.alerts, rules, policy="banking") as alerts,
        ):
            while True:
                check_still_leading()
                now = datetime.now(UTC)
                windows.take_in(traffic, cut, now=now)
                say("takes in")
                for window in windows.due(cut, now):
                    alerts.event("promoted", window.label, at=now, text="closed")
                    say("has told")
                    if stops == "is closing":
                        with windows._writing() as connection:
                            connection.exec_driver_sql("UPDATE windows SET state = 'closed' WHERE state = 'due'")
                            say("is closing")
                    windows.close_window(window, result, now=now)
                    say("has closed")
                alerts.deliver(now)
                time.sleep(0.05)

    work_on(workspace, MODEL, work=work, tell=say)


if __name__ == "__main__":
    lead(sys.argv[1], Path(sys.argv[2]), notify=sys.argv[3], stops=sys.argv[4])
