"""What a cluster runs, as processes on the loopback interface, each of which can be killed and started again."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import psutil

HOST = "127.0.0.1"
READY_S = 240
_LIBC, _PR_SET_PDEATHSIG = ctypes.CDLL(None), 1
RCLONE = str(Path(sys.executable).with_name("rclone"))
MLFLOW_BUCKET, ZENML_BUCKET = "mlflow", "zenml"
ZENML_ACCOUNT = "cluster"
S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "one",
    "AWS_SECRET_ACCESS_KEY": "two",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def status_at(url: str) -> int:
    """The status of a GET; 0 where nobody answers."""
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, trust_env=False, timeout=2).status_code
    return 0


def _end_with_us() -> None:
    """In a process that is being started: it gets a SIGKILL when the thread that started it is gone."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Server:
    """A process with all that it starts.

    Args:
        folder: made for it; it runs there, and ``log`` in it holds what it and those before it said.
        environment: all of it.

    Attributes:
        port: the same whenever it is started.
        ended: the exit codes with which it ended by itself.
        user: another one that it runs as, where tests run as root, whom it would refuse.
    """

    user: str | None = None

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.name, self.folder, self.port = name, folder, free_port()
        self.environment, self.log = dict(environment), folder / "log"
        self.ended = list[int]()
        self.process: psutil.Popen | None = None
        folder.mkdir(parents=True)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def command(self) -> Sequence[str]:
        """What is started."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Whether it does what it is for."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it, without waiting for it."""
        own = {"user": self.user, "group": self.user, "extra_groups": []} if self.user and os.geteuid() == 0 else {}
        with self.log.open("ab") as log:
            self.process = psutil.Popen(
                [*self.command()],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_us,
                **own,
            )

    def is_alive(self) -> bool:
        """Whether its process runs; one that has ended by itself is noted."""
        if self.process is None:
            return False
        if (code := self.process.poll()) is None:
            return True
        self.ended.append(code)
        self.process = None
        return False

    def wait(self, seconds: float = READY_S) -> None:
        """Wait until it is ready."""
        deadline = time.monotonic() + seconds
        while not self.is_ready():
            assert time.monotonic() < deadline, f"{self.name} is not ready:\n{self.said()[-4000:]}"
            time.sleep(0.1)

    def said(self) -> str:
        """Its log."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """As a machine that loses its power: it and all that it started are gone, and had no time for anything."""
        process, self.process = self.process, None
        if process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()  # so that it starts nothing more meanwhile
            for each in [*process.children(recursive=True), process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        process.wait(30)

    def kill_alone(self) -> None:
        """Its own process alone, by its pid: what it started has to see that by itself."""
        process, self.process = self.process, None
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
            process.wait(30)


class PostgreSQL(Server):
    """One server with a database each for OnTopic and MLflow."""

    user = "postgres"
    databases = ("ontopic", "mlflow")

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__("PostgreSQL", folder, environment)
        self.binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[-2]))[-1]
        if os.geteuid() == 0:
            shutil.chown(folder, self.user)
        own = {"user": self.user, "group": self.user, "extra_groups": []} if os.geteuid() == 0 else {}
        command = [str(self.binaries / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "trust"]
        command += ["-E", "UTF8", "--locale=C.UTF-8"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **own)

    def command(self) -> Sequence[str]:
        options = {"port": self.port, "listen_addresses": HOST, "unix_socket_directories": self.folder}
        command = [str(self.binaries / "postgres"), "-D", str(self.folder / "data")]
        return [*command, *(f"--{name}={value}" for name, value in options.items())]

    def database(self, name: str) -> str:
        return f"postgresql://postgres@{HOST}:{self.port}/{name}"

    def is_ready(self) -> bool:
        import psycopg

        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.database("postgres"), connect_timeout=2).close()
            return True
        return False

    def make_databases(self) -> None:
        import psycopg

        with psycopg.connect(self.database("postgres"), autocommit=True) as connection:
            for name in self.databases:
                connection.execute(f"CREATE DATABASE {name}".encode())


class MariaDB(Server):
    """What ZenML's server keeps its tables in: it knows SQLite and MySQL alone."""

    user = "mysql"

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__("MariaDB", folder, environment)
        if os.geteuid() == 0:
            shutil.chown(folder, self.user)
        own = {"user": self.user, "group": self.user, "extra_groups": []} if os.geteuid() == 0 else {}
        command = ["mariadb-install-db", "--no-defaults", f"--datadir={folder / 'data'}", "--skip-test-db"]
        command += ["--auth-root-authentication-method=normal"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **own)
        account = f"'{ZENML_ACCOUNT}'@'{HOST}'"
        (folder / "account.sql").write_text(
            f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY '{ZENML_ACCOUNT}';\nGRANT ALL ON *.* TO {account};\n"
        )

    def command(self) -> Sequence[str]:
        options = {"datadir": self.folder / "data", "port": self.port, "bind-address": HOST}
        options |= {"socket": self.folder / "socket", "pid-file": self.folder / "pid", "skip-name-resolve": "1"}
        options |= {"init-file": self.folder / "account.sql", "innodb-flush-log-at-trx-commit": 2}
        return ["/usr/sbin/mariadbd", "--no-defaults", *(f"--{name}={value}" for name, value in options.items())]

    @property
    def database_url(self) -> str:
        return f"mysql://{ZENML_ACCOUNT}:{ZENML_ACCOUNT}@{HOST}:{self.port}/zenml"

    def is_ready(self) -> bool:
        import pymysql

        with contextlib.suppress(pymysql.err.OperationalError):
            account = {"user": ZENML_ACCOUNT, "password": ZENML_ACCOUNT}
            pymysql.connect(host=HOST, port=self.port, connect_timeout=2, **account).close()
            return True
        return False


class ObjectStore(Server):
    """rclone's S3, whose objects are files: moto's are in memory, so that its death is their end."""

    def __init__(self, folder: Path, environment: Mapping[str, str], buckets: Sequence[str]) -> None:
        super().__init__("S3", folder, environment)
        for bucket in buckets:
            (folder / "data" / bucket).mkdir(parents=True)

    def command(self) -> Sequence[str]:
        keys = f"{S3_ENVIRONMENT['AWS_ACCESS_KEY_ID']},{S3_ENVIRONMENT['AWS_SECRET_ACCESS_KEY']}"
        return [RCLONE, "serve", "s3", "--addr", f"{HOST}:{self.port}", "--auth-key", keys, str(self.folder / "data")]

    def is_ready(self) -> bool:
        return status_at(self.url) > 0


class MLflow(Server):
    """MLflow's server, its tables in PostgreSQL and its artifacts in the object store, whose key it alone has."""

    def __init__(self, folder: Path, environment: Mapping[str, str], *, database: str, store: str) -> None:
        own = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_S3_ENDPOINT_URL": store}
        super().__init__("MLflow", folder, {**environment, **own, **S3_ENVIRONMENT})
        self._database = database.replace("postgresql://", "postgresql+psycopg://")

    def command(self) -> Sequence[str]:
        command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", self._database]
        return [*command, "--artifacts-destination", f"s3://{MLFLOW_BUCKET}"]

    def is_ready(self) -> bool:
        return status_at(f"{self.url}/health") == 200


class ZenML(Server):
    """ZenML's server."""

    def __init__(self, folder: Path, environment: Mapping[str, str], *, database: str) -> None:
        own = {
            "ZENML_SERVER": "true",
            "ZENML_SERVER_AUTO_ACTIVATE": "true",
            "ZENML_SERVER_DEPLOYMENT_TYPE": "other",
            "ZENML_ANALYTICS_OPT_IN": "false",
            "ZENML_DEFAULT_USER_NAME": ZENML_ACCOUNT,
            "ZENML_DEFAULT_USER_PASSWORD": ZENML_ACCOUNT,
            "ZENML_SERVER_JWT_SECRET_KEY": "0123456789abcdef" * 4,  # else each start forgets who has logged in
            "ZENML_CONFIG_PATH": str(folder / "configuration"),
            "ZENML_STORE_TYPE": "sql",
            "ZENML_STORE_URL": database,
        }
        super().__init__("ZenML", folder, {**environment, **own})

    def command(self) -> Sequence[str]:
        command = [sys.executable, "-m", "uvicorn", "zenml.zen_server.zen_server_api:app", "--host", HOST]
        return [*command, "--port", str(self.port), "--log-level", "warning"]

    def is_ready(self) -> bool:
        return status_at(f"{self.url}/ready") == 200
