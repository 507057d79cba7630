"""``serving.json``: which service runs from a state folder."""

from __future__ import annotations

from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from ontopic.state.whole_file import whole_file


class RunningService(BaseModel):
    """A service's entry. A process is known by its id and the time it was created, as ids are used again.

    Attributes:
        model: the registered model that is served; empty where an older release wrote the entry.
        create_time, launcher_create_time: seconds since the epoch.
        host: the address at which this machine reaches it.
    """

    model_config = ConfigDict(frozen=True)
    pid: int
    create_time: float
    port: int
    launcher_pid: int
    launcher_create_time: float
    host: str = "127.0.0.1"
    model: str = ""

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/v1"

    def process(self) -> psutil.Process | None:
        """The service's supervisor, where it lives."""
        return _living(self.pid, self.create_time)

    def launcher(self) -> psutil.Process | None:
        """The process that started it, where it lives."""
        return _living(self.launcher_pid, self.launcher_create_time)


def write_service(file: Path, *, process: psutil.Process, host: str, port: int, model: str) -> RunningService:
    """Enter a service that this process started."""
    launcher = psutil.Process()
    entry = RunningService(
        pid=process.pid,
        create_time=process.create_time(),
        port=port,
        launcher_pid=launcher.pid,
        launcher_create_time=launcher.create_time(),
        host=host,
        model=model,
    )
    with whole_file(file) as part:
        part.write_text(entry.model_dump_json())
    return entry


def read_service(file: Path) -> RunningService | None:
    """The entry in a file; ``None`` where there is no such file, or it holds no entry."""
    try:
        return RunningService.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def _living(pid: int, create_time: float) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        same = process.create_time() == create_time and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return process if same else None
