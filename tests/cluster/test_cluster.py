"""Everything on PostgreSQL, MLflow, ZenML, S3 and HAProxy, each process killed twice under load: nothing is lost.

``make test-cluster``. It takes about 20 minutes on 2 cores: the loop to a promotion, then a day of ``watch`` on a clock
that runs 150 times as fast. ``CLUSTER_KEEP`` names a new folder for the logs, ``CLUSTER_REPORT`` a file for numbers.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from cluster.assistants import MODEL
from cluster.checks import advisory_locks, check_alerts, check_champion, check_traffic, check_windows, stores
from cluster.cluster import Cluster
from cluster.life import DAY, RATE, Life, Lived, configured
from cluster.receiver import Receiver, running_receiver

pytestmark = pytest.mark.cluster
TIMES = 2


@dataclass
class Whole:
    """A cluster that has lived, all but ``watch`` of which still runs."""

    cluster: Cluster
    lived: Lived
    receiver: Receiver


@pytest.fixture(scope="module")
def whole(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = Path(tempfile.mkdtemp(prefix="ontopic-cluster-"))
    folder.chmod(0o755)  # for the users of the databases
    patch = pytest.MonkeyPatch()
    try:
        with running_receiver() as receiver:
            config = configured(tmp_path_factory.mktemp("configured"), receiver)
            with Cluster(folder, config, rate=RATE) as cluster:
                for name in ("ONTOPIC_STATE_URL", "ONTOPIC_TRAFFIC_URL", "MLFLOW_TRACKING_URI"):
                    patch.setenv(name, cluster.environment[name])
                patch.setenv("NO_PROXY", "127.0.0.1")
                yield Whole(cluster, _live(cluster, tmp_path_factory.mktemp("ledger")), receiver)
    finally:
        patch.undo()
        shutil.rmtree(folder, ignore_errors=True)


def _live(cluster: Cluster, folder: Path) -> Lived:
    life = Life(cluster, folder)
    cluster.keep(cluster.loop)
    life.open_doors()
    life.kill_in_turn([cluster.loop, *cluster.shared], during="the loop", times=TIMES, every_s=8)
    life.promoted()
    targets = [*cluster.shared, cluster.balancer, *cluster.replicas, *cluster.watches]
    return life.watched_day(targets, times=TIMES, every_s=12, length=DAY)


def _report(**numbers: object) -> None:
    """Say the numbers, and keep them where that is wanted."""
    print(json.dumps(numbers, default=str), flush=True)
    if path := os.environ.get("CLUSTER_REPORT"):
        with Path(path).open("a") as file:
            file.write(json.dumps(numbers, default=str) + "\n")


def test_everything_was_killed_twice_and_came_back(whole: Whole) -> None:
    kills = {name: [k for k in whole.lived.killed if k.name == name] for name in {k.name for k in whole.lived.killed}}
    cluster = whole.cluster
    servers = [*cluster.shared, cluster.balancer, *cluster.replicas, *cluster.watches, cluster.loop]
    assert {name: len(found) >= TIMES for name, found in kills.items()} == {each.name: True for each in servers}
    _report(killed=[k.model_dump() for k in whole.lived.killed], by_themselves=whole.lived.by_themselves)


def test_each_answer_is_one_record(whole: Whole) -> None:
    traffic, *others = stores(whole.cluster)
    found = check_traffic(traffic.records(), whole.lived.ledger)
    for store in (traffic, *others):
        store.close()
    ledger = whole.lived.ledger
    seconds = np.quantile([asked.seconds for asked in ledger], [0.5, 0.95, 1])
    again = Counter(asked.attempts for asked in ledger if asked.attempts > 1)
    _report(traffic=found, failed=[asked.failed for asked in ledger if not asked.record], sent_again=dict(again))
    _report(seconds_median_95_longest=seconds.round(1).tolist())
    assert found["answered"] > 500


def test_each_record_is_in_one_window_that_was_closed_once(whole: Whole) -> None:
    traffic, windows, alerts = stores(whole.cluster)
    said = "\n".join(watch.said() for watch in whole.cluster.watches)
    _report(windows=check_windows(windows, traffic.records(), said))
    kills = sum(k.name.startswith("watch") for k in whole.lived.killed)
    _report(alerts=check_alerts(alerts, whole.receiver, kills_of_watch=kills))
    for store in (traffic, windows, alerts):
        store.close()


def test_there_is_one_champion_on_record_and_both_replicas_serve_it(whole: Whole) -> None:
    assert whole.lived.ledger[-1].version == check_champion(whole.cluster, whole.lived.key) != "1"


def test_keys_and_their_limits_hold_on_both_replicas(whole: Whole) -> None:
    cluster = whole.cluster
    made = cluster.run("keys", "make", "few", "--requests-per-minute", "5")
    assert made.returncode == 0, made.stderr
    key = made.stdout.split()[-1]

    def asked(key: str) -> int:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
        url, headers = f"{cluster.balancer.url}/v1/chat/completions", {"authorization": f"Bearer {key}"}
        return httpx.post(url, json=body, headers=headers, trust_env=False, timeout=60).status_code

    assert asked("sk-nobody's") == 401
    assert sorted(asked(key) for _ in range(12)) == [200] * 5 + [429] * 7
    assert cluster.run("keys", "revoke", "few").returncode == 0


def test_no_lock_is_left(whole: Whole) -> None:
    """Last, as it ends ``watch``: then a loop or another ``watch`` may begin."""
    cluster = whole.cluster
    cluster.leave(*cluster.watches)
    done = cluster.run("watch", "--once", "--dry-run")
    assert done.returncode == 0, done.stderr
    cluster.leave(cluster.balancer, *cluster.replicas)
    assert advisory_locks(cluster) == 0
