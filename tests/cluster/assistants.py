"""OnTopic's own processes in a cluster: replicas behind HAProxy, ``watch``, and the loop."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import yaml
from cluster.servers import HOST, Server, status_at
from loopback import ROOT


class Command(Server):
    """A command of ``run.py`` with a state folder of its own: nothing in it is shared, as on a machine of its own.

    Args:
        config: the configuration file; it is given another port.
        arguments: the command and its options.
    """

    def __init__(
        self, name: str, folder: Path, environment: Mapping[str, str], *, config: Path, arguments: Sequence[str]
    ) -> None:
        super().__init__(name, folder, environment)
        self.state, self.arguments = folder / "state", list(arguments)
        settings = yaml.safe_load(config.read_text())
        settings["serving"] |= {"port": self.port}
        self.config = config.with_name(f"{folder.name}.yaml")
        self.config.write_text(yaml.safe_dump(settings))

    def command(self) -> Sequence[str]:
        options = ["--config", str(self.config), "--state", str(self.state)]
        return [sys.executable, str(ROOT / "run.py"), *self.arguments, *options]

    def is_ready(self) -> bool:
        return self.is_alive()


class Replica(Command):
    """``serve``, which is ready once the process that was started last has said so: what a killed one left behind may
    still answer for a moment."""

    _said_before = 0

    def start(self) -> None:
        self._said_before = len(self.said()) if self.log.exists() else 0
        super().start()

    def is_ready(self) -> bool:
        return "Ctrl-C ends it" in self.said()[self._said_before :] and status_at(f"{self.url}/readyz") == 200

    def version(self, key: str) -> str:
        """The version that answers here."""
        asked = {"model": MODEL, "messages": [{"role": "user", "content": "when do I prune my roses"}], "max_tokens": 4}
        answered = httpx.post(
            f"{self.url}/v1/chat/completions",
            json=asked | {"metadata": {"ask": "a probe"}},
            headers={"authorization": f"Bearer {key}"},
            trust_env=False,
            timeout=60,
        )
        return answered.headers.get("x-ontopic-model-version", f"status {answered.status_code}")


class Watch(Command):
    """``watch``."""

    def is_ready(self) -> bool:
        return self.is_alive() and self.process is not None


class Loop(Command):
    """The loop, which is through once it has ended with 0."""

    @property
    def is_through(self) -> bool:
        return not self.is_alive() and self.ended[-1:] == [0]


MODEL = "ontopic-gardening"


class Balancer(Server):
    """HAProxy before two replicas, by the file that is shipped."""

    def __init__(self, folder: Path, environment: Mapping[str, str], replicas: Sequence[Server]) -> None:
        super().__init__("HAProxy", folder, environment)
        self.environment["ONTOPIC_LISTEN"] = f"{HOST}:{self.port}"
        for number, replica in enumerate(replicas, start=1):
            self.environment[f"ONTOPIC_REPLICA_{number}"] = f"{HOST}:{replica.port}"

    def command(self) -> Sequence[str]:
        return ["/usr/sbin/haproxy", "-db", "-f", str(ROOT / "serving" / "haproxy.cfg")]

    def is_ready(self) -> bool:
        return status_at(f"{self.url}/livez") > 0
