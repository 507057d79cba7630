"""A ZenML server with its data in MariaDB (it knows no PostgreSQL), and an MLflow server with its in PostgreSQL and
artifacts in S3, each in a process of its own on the loopback interface."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

USER, PASSWORD = "admin", "of-the-tests"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], url: str, *, log: Path, **environment: str) -> Iterator[None]:
    """Run a server until the end of the block, which begins when it answers."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("ZENML_", "MLFLOW_"))} | environment
    with log.open("wb") as output:
        server = psutil.Popen(command, cwd=log.parent, env=own, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 300
        while not _answers(url):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.3)
        yield
    finally:
        for process in [*server.children(recursive=True), server]:
            process.kill()
        server.wait()


def _answers(url: str) -> bool:
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5)
    except (OSError, urllib.error.URLError):
        return False
    return True


@contextmanager
def mariadb(folder: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if not all(map(shutil.which, ("mariadbd", "mariadb-install-db"))):
        pytest.skip("MariaDB is not installed (Debian's mariadb-server), in which ZenML's server keeps its data")
    folder.mkdir(parents=True)
    user = []
    if os.geteuid() == 0:
        shutil.chown(folder, "mysql")
        folder.chmod(0o755)
        user = ["--user=mysql"]
    data, port = f"--datadir={folder / 'data'}", free_port()
    install = ["mariadb-install-db", "--no-defaults", *user, data, "--auth-root-authentication-method=normal"]
    subprocess.run([*install, "--skip-test-db"], check=True, capture_output=True)
    command = ["mariadbd", "--no-defaults", *user, data, f"--socket={folder / 's'}", f"--port={port}"]
    command += ["--bind-address=127.0.0.1", f"--pid-file={folder / 'pid'}", "--innodb-flush-log-at-trx-commit=0"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with _connected(port) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE zenml")
            cursor.execute("CREATE USER zenml@'127.0.0.1' IDENTIFIED BY 'zenml'")
            cursor.execute("GRANT ALL ON zenml.* TO zenml@'127.0.0.1'")
        yield f"mysql://zenml:zenml@127.0.0.1:{port}/zenml"
    finally:
        server.kill()
        server.wait()


def _connected(port: int) -> Any:
    import pymysql

    deadline = time.monotonic() + 60
    while True:
        try:
            return pymysql.connect(host="127.0.0.1", port=port, user="root")
        except pymysql.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


@contextmanager
def zenml_server(folder: Path) -> Iterator[str]:
    """The URL of a ZenML server; ``USER`` with ``PASSWORD`` may do all there."""
    with mariadb(folder / "mariadb") as database:
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "zenml.zen_server.zen_server_api:app", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--log-level", "warning"]
        (folder / "zenml").mkdir()
        own = {
            "ZENML_SERVER_DEPLOYMENT_TYPE": "other",
            "ZENML_SERVER_AUTO_ACTIVATE": "true",
            "ZENML_SERVER_JWT_SECRET_KEY": "0" * 64,
            "ZENML_DEFAULT_USER_NAME": USER,
            "ZENML_DEFAULT_USER_PASSWORD": PASSWORD,
            "ZENML_ANALYTICS_OPT_IN": "false",
            "ZENML_CONFIG_PATH": str(folder / "zenml"),
            "ZENML_STORE_TYPE": "sql",
            "ZENML_STORE_URL": database,
            "ZENML_STORE_BACKUP_STRATEGY": "disabled",
        }
        url = f"http://127.0.0.1:{port}"
        with running(command, f"{url}/health", log=folder / "zenml.log", **own):
            yield url


@contextmanager
def mlflow_server(folder: Path, *, database: str, artifacts: str, environment: Mapping[str, str]) -> Iterator[str]:
    """The URL of an MLflow server that alone reaches the store of its artifacts.

    Args:
        database: PostgreSQL's URL.
        artifacts: such as ``s3://bucket/folder``; ``environment`` says where that is.
    """
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", database.replace("postgresql://", "postgresql+psycopg://")]
    command += ["--artifacts-destination", artifacts]
    url, own = f"http://127.0.0.1:{port}", {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **environment}
    with running(command, f"{url}/health", log=folder / "mlflow.log", **own):
        yield url
