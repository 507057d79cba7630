"""What a cluster lives through: the loop to a promotion, then a day of ``watch``, everything killed in turn."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import mlflow
import yaml
from cluster.assistants import MODEL, Command
from cluster.checks import spooled, stores, unclosed
from cluster.cluster import Cluster, Killed, waited
from cluster.load import Asked, Load
from cluster.receiver import Receiver
from cluster.servers import PostgreSQL, Server
from loopback import ROOT
from loops import LENIENT, write_config
from mlflow.exceptions import MlflowException
from pydantic import BaseModel, ConfigDict

from ontopic.config.policy import load_policy
from ontopic.data.labelled import load_questions

RATE = 150.0
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
LATENESS = timedelta(minutes=60)
_RULES = 10


class Lived(BaseModel):
    """What came of it.

    Attributes:
        key: of the customers.
        killed: in turn.
        begun, ended: of the watched day, by the simulated clock.
        by_themselves: the exit codes of what ended unasked, by its name.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)
    key: str
    ledger: list[Asked]
    killed: list[Killed]
    begun: datetime
    ended: datetime
    by_themselves: dict[str, list[int]]


def configured(folder: Path, receiver: Receiver) -> Path:
    """A small setting of the gardening policy, in which each window is an event that a rule counts."""
    rules = [
        {"name": f"{n} bad hours", "events": ["suspected", "detected"], "count": n, "notify": [receiver.url]}
        for n in range(1, _RULES + 1)
    ]
    rules.append({"name": "the loop", "events": ["promoted", "rolled_back", "failed"], "notify": [receiver.url]})
    config = write_config(
        folder,
        LENIENT,
        serving={"port": 0, "spool": True},
        alerts=rules,
        watch={"retrainings_a_day": 0, "canary": "0s"},
        monitoring={"window_records": 12, "window": "1h", "lateness": f"{LATENESS.seconds // 60}m"},
    )
    settings = yaml.safe_load(config.read_text())
    assert settings["policy"] == "policy.yaml"
    return config


def questions() -> list[str]:
    """What customers ask: nothing of the gate's."""
    policy = load_policy(ROOT / "configs" / "policies" / "gardening.yaml")
    return [each.question for each in load_questions(policy.questions, split="train")][:400]


class Life:
    """The steps of it, in the order in which they are called."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self._folder = cluster, folder
        self._load: Load | None = None
        self.key = ""

    def champion(self) -> str:
        """By the registry; empty where there is none, or it does not answer."""
        client = mlflow.MlflowClient(tracking_uri=self.cluster.mlflow.url)
        try:
            return str(client.get_model_version_by_alias(MODEL, "champion").version)
        except MlflowException:
            return ""

    def open_doors(self) -> None:
        """Serve version 1 as soon as there is one, and let customers in."""
        cluster = self.cluster
        waited("the base model is the champion", 600, self.champion)
        made = cluster.run("keys", "make", "customers")
        assert made.returncode == 0, made.stderr
        self.key = made.stdout.split()[-1]
        cluster.keep(*cluster.replicas, cluster.balancer)
        for server in (*cluster.replicas, cluster.balancer):
            server.wait()
        url, ledger = f"{cluster.balancer.url}/v1", self._folder / "ledger.jsonl"
        self._load = Load(url, self.key, model=MODEL, questions=questions(), ledger=ledger)
        self._load.start()
        waited("a customer is answered", 120, self._load.answered)

    def kill_in_turn(self, servers: Sequence[Server], *, during: str, times: int, every_s: float) -> None:
        """Kill each so often: with all that it started, and every second time its own process alone, where what it
        started ends by itself then."""
        for turn in range(times):
            for server in servers:
                if server is self.cluster.loop and self.cluster.loop.is_through:
                    continue
                time.sleep(every_s)
                alone = turn % 2 == 1 and isinstance(server, (Command, PostgreSQL))
                self.cluster.kill(server, during=during, alone=alone)

    def promoted(self) -> None:
        """The loop comes to its end, however often it was killed."""
        waited("the loop is through", 900, lambda: self.cluster.loop.is_through)

    def watched_day(self, targets: Sequence[Server], *, times: int, every_s: float, length: timedelta = DAY) -> Lived:
        """A day by the simulated clock, and what follows until its last window is closed."""
        cluster = self.cluster
        begun = cluster.now()
        cluster.keep(*cluster.watches)
        self.kill_in_turn(targets, during="the watched day", times=times, every_s=every_s)
        waited("the day is over", 1200, lambda: cluster.now() >= begun + length)
        assert self._load is not None
        ledger = self._load.stop()
        ended = cluster.now()
        waited("no record waits in a spool", 60, lambda: not spooled(cluster))
        over = ended.replace(minute=0, second=0, microsecond=0) + HOUR + LATENESS
        waited("the last window's time has come", 300, lambda: cluster.now() > over)
        traffic, windows, alerts = stores(cluster)
        waited("the last window is closed", 300, lambda: not windows.waiting() and not unclosed(windows))
        for store in (traffic, windows, alerts):
            store.close()
        return Lived(
            key=self.key,
            ledger=ledger,
            killed=cluster.killed,
            begun=begun,
            ended=ended,
            by_themselves={each.name: each.ended for each in [*cluster.watches, *cluster.replicas, cluster.loop]},
        )
