"""``serving/compose/compose.yaml`` without Docker: each service's own command as a process on this machine.

What Docker does is done in its place: a service has an address of its own on the loopback interface, by which its name
and 0.0.0.0 go in commands, environment and mounted files; and a root folder of its own, below which its volumes, mounts
and secrets are.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from loopback import ROOT

FOLDER = ROOT / "serving" / "compose"
_VARIABLE = re.compile(r"\$\{(\w+)(?:(:?[-?])([^}]*))?\}")


def read() -> dict[str, Any]:
    """The file, with its anchors resolved and its variables in it."""
    return dict(yaml.safe_load((FOLDER / "compose.yaml").read_text()))


def filled(value: Any, variables: Mapping[str, str]) -> Any:
    """A value with its variables filled in, as Compose does it."""
    if isinstance(value, dict):
        return {key: filled(each, variables) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, variables) for each in value]
    return _VARIABLE.sub(lambda found: _filled(found, variables), value) if isinstance(value, str) else value


def _filled(found: re.Match[str], variables: Mapping[str, str]) -> str:
    name, how, otherwise = found.groups()
    given = variables.get(name)
    if given is not None and (given or not (how or "").startswith(":")):
        return given
    if how in (None, "?", ":?"):
        raise KeyError(f"{name}: {otherwise or 'not set'}")
    return str(otherwise)


def example() -> dict[str, str]:
    """The variables of example.env."""
    lines = (FOLDER / "example.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@dataclass
class Composed:
    """The services as processes.

    Attributes:
        folder: where the services' roots are; others can read it.
        variables: what is in .env.
    """

    folder: Path
    variables: dict[str, str]
    running: dict[str, psutil.Popen] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.services: dict[str, dict[str, Any]] = read()["services"]
        self.secrets: dict[str, dict[str, str]] = read()["secrets"]
        network = f"127.{os.getpid() % 250 + 2}.{os.getpid() // 250 % 250 + 2}"
        self.addresses = {name: f"{network}.{i}" for i, name in enumerate(self.services, 2)}

    def root(self, name: str) -> Path:
        """What is / in the service."""
        return self.folder / name

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def in_order(self) -> Iterator[str]:
        """The services without a profile, each after those that it depends on."""
        left = [name for name, service in self.services.items() if "profiles" not in service]
        while left:
            ready = [name for name in left if not set(self.services[name].get("depends_on", ())) & set(left)]
            yield ready[0]
            left.remove(ready[0])

    def start(self, name: str) -> None:
        """Start it once those that it depends on are as it asks, and prepare what its image does by itself."""
        needed = self.services[name].get("depends_on", {})
        for other, how in needed.items() if isinstance(needed, dict) else []:
            if how["condition"] == "service_healthy":
                self.wait_healthy(other)
        self._lay_out(name)
        command, environment = self.command(name), self.environment(name)
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = psutil.Popen(
                self._as_user(name, command),
                env=environment,
                cwd=ROOT if _image(self.services[name]).startswith("ontopic") else self.root(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, name: str, *arguments: str) -> str:
        """`docker compose run --rm NAME ARGUMENTS`: what it prints."""
        self._lay_out(name)
        # Of the image: its .ontopic is a link to /data.
        command = self._as_user(name, [*self._entrypoint(name), *arguments, "--state", self._local(name, "/data")])
        done = subprocess.run(
            command, env=self.environment(name), cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def is_healthy(self, name: str) -> bool:
        """By the service's own check."""
        kind, *test = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        command = [_binary(str(test[0])), *(self._local(name, part) for part in test[1:])]
        done = subprocess.run(command, env=self.environment(name), capture_output=True, timeout=60, check=False)
        return done.returncode == 0

    def wait_healthy(self, name: str, timeout_s: float = 180) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.is_healthy(name):
            assert self.running[name].poll() is None, f"{name} ended: {self.log(name)[-3000:]}"
            assert time.monotonic() < deadline, f"{name}: {self.log(name)[-3000:]}"
            time.sleep(0.5)

    def stop(self, name: str, timeout_s: float = 60) -> None:
        """`docker compose stop NAME`; what is left then is killed."""
        process = self.running.pop(name)
        family = [process]
        try:
            family += process.children(recursive=True)
            process.send_signal(signal.SIGINT if _image(self.services[name]) == "postgres" else signal.SIGTERM)
        except psutil.NoSuchProcess:
            pass
        for member in psutil.wait_procs(family, timeout=timeout_s)[1]:
            member.kill()

    def stop_all(self) -> None:
        for name in reversed(list(self.running)):
            self.stop(name, timeout_s=20)

    def environment(self, name: str) -> dict[str, str]:
        """The image's own variables, and the service's after them."""
        service = self.services[name]
        given = {**_of_image(_image(service)), **service.get("environment", {})}
        local = {key: self._local(name, str(value)) for key, value in given.items()}
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin",
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(self.root(name) / "tmp"),
            **{key: value for key, value in local.items() if key != "PATH"},
        }

    def command(self, name: str) -> list[str]:
        """What the image runs, as this machine has it."""
        service = self.services[name]
        image, address = _image(service), self.addresses[name]
        given = [self._local(name, str(part)) for part in service.get("command", [])]
        if image == "postgres":
            data = self.root(name) / "var/lib/postgresql/data"
            sockets = f"unix_socket_directories={self.root(name) / 'tmp'}"
            return [_binary("postgres"), "-D", str(data), "-c", f"listen_addresses={address}", "-c", sockets, *given]
        if image == "prom/prometheus":
            return [_binary("prometheus"), *given, f"--web.listen-address={address}:9090"]
        if image == "chrislusf/seaweedfs":
            return [_binary("weed"), *given]
        if image == "ontopic-assistant":  # its entrypoint puts the Bento last
            return [sys.executable, "-m", "bentoml", *given, "serving.service:Assistant", "--working-dir", str(ROOT)]
        if image == "haproxy":
            return [_binary(given[0]), *given[1:]]
        assert image == "ontopic", image
        return [*self._entrypoint(name), *given]

    def _entrypoint(self, name: str) -> list[str]:
        image = (ROOT / "pipelines" / "Dockerfile").read_text()
        found = re.search(r"^ENTRYPOINT (.*)$", image, re.M)
        assert found
        given = self.services[name].get("entrypoint") or yaml.safe_load(found[1])
        return [_binary(given[0]), *given[1:]]

    def _local(self, name: str, text: str) -> str:
        """What is said in a service, as it is on this machine."""
        names, own = "|".join(map(re.escape, self.addresses)), self.addresses[name]
        text = re.sub(
            rf"(?:(?<=[=@/,\"])|^)({names})(?=:\d)|(?<==)({names})$",
            lambda found: self.addresses[found[1] or found[2]],
            text,
        )
        text = re.sub(r"\b(0\.0\.0\.0|127\.0\.0\.1|localhost)\b(?=[:/]\d|$)", own, text)
        text = re.sub(r"^:(?=\d+$)", f"{own}:", text)
        inside = sorted({*self._mounts(name), "/tmp", "/run/secrets"}, key=len, reverse=True)  # noqa: S108
        text = re.sub(
            rf"(?<![\w.\"/:])({'|'.join(map(re.escape, inside))})(?=/|$)",
            lambda found: f"{self.root(name)}{found[1]}",
            text,
        )
        return str(filled(text, self.variables))

    def _mounts(self, name: str) -> dict[str, str]:
        """What is mounted where: the path in the service, and the volume or the file here."""
        split = (each.split(":") for each in self.services[name].get("volumes", []))
        return {parts[1]: parts[0] for parts in split}

    def _lay_out(self, name: str) -> None:
        """The service's root: its volumes, its mounted files, its secrets."""
        root, service = self.root(name), self.services[name]
        for path in (root / "tmp", root / "run/secrets"):
            path.mkdir(parents=True, exist_ok=True)
        for secret in service.get("secrets", []):
            (root / "run/secrets" / secret).write_text(self.variables[self.secrets[secret]["environment"]])
        for inside, outside in self._mounts(name).items():
            target = root / inside.lstrip("/")
            if not outside.startswith("."):
                target.mkdir(parents=True, exist_ok=True)
                continue
            source = (FOLDER / outside).resolve()
            for path in [source] if source.is_file() else source.rglob("*"):
                here = target / path.relative_to(source) if source.is_dir() else target
                if path.is_file() and not here.exists():
                    here.parent.mkdir(parents=True, exist_ok=True)
                    here.write_text("\n".join(self._file_line(name, line) for line in path.read_text().split("\n")))
        if _image(service) == "postgres" and not any((root / "var/lib/postgresql/data").iterdir()):
            self._make_database(name)

    def _file_line(self, name: str, line: str) -> str:
        names = "|".join(map(re.escape, self.addresses))
        line = re.sub(rf"(?<=[\"/])({names})(?=:\d)", lambda found: self.addresses[found[1]], line)
        return re.sub(r"(?<= )(/run/secrets|/var/lib/grafana)", lambda found: f"{self.root(name)}{found[1]}", line)

    def _make_database(self, name: str) -> None:
        """What the image does at its first start: a cluster, and the scripts of docker-entrypoint-initdb.d."""
        root, given = self.root(name), self.environment(name)
        password = root / "tmp" / "password"
        password.write_text(given["POSTGRES_PASSWORD"])
        if self._steps_down(name):
            for path in (root, *root.rglob("*")):
                shutil.chown(path, "postgres")
        data, user = root / "var/lib/postgresql/data", given["POSTGRES_USER"]
        initdb = [_binary("initdb"), "-D", str(data), "-U", user, "--pwfile", str(password), "-A", "scram-sha-256"]
        self._once(name, [*initdb, "-E", "UTF8", "--locale=C.UTF-8"])
        socket = f"-c listen_addresses= -c unix_socket_directories={root / 'tmp'}"
        self._once(name, [_binary("pg_ctl"), "-D", str(data), "-w", "-o", socket, "-l", str(root / "tmp/log"), "start"])
        psql = [_binary("psql"), "-h", str(root / "tmp"), "-U", user, "-v", "ON_ERROR_STOP=1"]
        self._once(name, [*psql, "-d", "postgres", "-c", f"CREATE DATABASE {given['POSTGRES_DB']}"])
        for script in sorted((root / "docker-entrypoint-initdb.d").iterdir()):
            self._once(name, [*psql, "-d", given["POSTGRES_DB"], "-f", str(script)])
        self._once(name, [_binary("pg_ctl"), "-D", str(data), "-w", "stop"])

    def _once(self, name: str, command: list[str]) -> None:
        environment = self.environment(name) | {"PGPASSWORD": self.variables["POSTGRES_PASSWORD"]}
        done = subprocess.run(
            self._as_user(name, command),
            env=environment,
            cwd=self.root(name),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def _as_user(self, name: str, command: list[str]) -> list[str]:
        return ["runuser", "-u", "postgres", "--", *command] if self._steps_down(name) else command

    def _steps_down(self, name: str) -> bool:
        """PostgreSQL refuses to run as root."""
        return os.geteuid() == 0 and _image(self.services[name]) == "postgres"


def _image(service: Mapping[str, Any]) -> str:
    return str(service["image"]).rsplit(":", 1)[0] if "${" not in service["image"] else service["image"].split(":")[0]


def _of_image(image: str) -> dict[str, str]:
    """The variables that our own images set."""
    if image == "ontopic-assistant":
        given = yaml.safe_load((ROOT / "serving" / "bentofile.yaml").read_text())
        return {each["name"]: str(each["value"]) for each in given["envs"] if not each["name"].startswith("UV_")}
    if image == "ontopic":
        text = (ROOT / "pipelines" / "Dockerfile").read_text().replace("\\\n", " ").rpartition("FROM ")[2]
        found = re.search(r"^ENV (.*)$", text, re.M)
        assert found
        return dict(pair.split("=", 1) for pair in found[1].split())
    return {}


def _binary(name: str) -> str:
    if name == "python":
        return sys.executable
    folders = [*map(str, Path("/usr/lib/postgresql").glob("*/bin")), "/usr/sbin"]
    found = shutil.which(name, path=":".join([str(Path(sys.executable).parent), os.environ["PATH"], *folders]))
    if found is None:
        raise FileNotFoundError(name)
    return found
