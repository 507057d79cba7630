"""The loop on a ZenML stack whose steps run elsewhere: each in a process of its own, as another user, with an empty
working folder and an empty home, from which nothing but artifacts and servers can be reached."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from loopback import ROOT, ChatServer, Reply, running_server
from loops import LENIENT, NAME, Run, environment, run, write_config
from object_store import BUCKET, object_store
from second_machine import SecondMachine
from small_models import small_model
from subprocess_orchestrator import FLAVOR, MACHINES, PYTHON
from zenml_server import PASSWORD, USER, mlflow_server, zenml_server

from ontopic.config.policy import load_policy
from ontopic.data.labelled import load_questions

pytestmark = pytest.mark.slow
MODEL = "tests/small"

REGISTER = """
import json, sys
from zenml.client import Client
from pipelines import register_stack
from pipelines.stack import tracker_configuration
client, wanted = Client(), json.loads(sys.argv[1])
if not client.list_flavors(name=wanted["flavor"]).total:
    client.create_flavor("subprocess_orchestrator.SubprocessOrchestratorFlavor", "orchestrator")
handed = register_stack.handed_on([])
s3 = register_stack.s3_store(client, wanted["artifacts"], name="apart", endpoint=wanted["endpoint"], say=print)
parts = {
    "orchestrator": (wanted["flavor"], {}),
    "artifact_store": ("s3", s3),
    "experiment_tracker": ("mlflow", register_stack.mlflow_tracker(handed, name="apart")),
    "model_registry": ("mlflow", {}),
}
register_stack.register_stack(client, "apart", parts=parts, handed=handed, say=print)
account = client.create_service_account("steps")
print("key:" + client.create_api_key(account.id, "steps").key)
"""


@dataclass(frozen=True)
class Cluster:
    """The servers, and the environment of who starts a loop.

    Attributes:
        machines: the folder with one for each step that ran.
    """

    environment: dict[str, str]
    machines: Path
    mlflow_uri: str
    config: Path


def judged(request: dict[str, Any], scopes: dict[str, bool], refusal: str) -> Reply:
    """What the LLM judge says: as labelled, and that it declined where the refusal is in the answer."""
    prompt = request["messages"][-1]["content"]
    if prompt.startswith("Two assistants"):
        return Reply('{"explanation": "So.", "verdict": "tie"}')
    if "You judge whether" not in prompt:
        return Reply('{"verdict": "pass"}')
    question, _, answer = prompt.rpartition("User (the question):\n| ")[2].partition("\nAnswer: ")
    in_scope, declined = scopes.get(question.partition("\n")[0], True), refusal in answer
    verdict = "pass" if in_scope != declined else "fail"
    return Reply(json.dumps({"explanation": "So.", "in_scope": in_scope, "declined": declined, "verdict": verdict}))


@pytest.fixture(scope="module")
def chat() -> Iterator[ChatServer]:
    policy = load_policy(ROOT / "configs/policies/gardening.yaml")
    scopes = {q.question: q.in_scope for q in load_questions(policy.questions)}
    with running_server() as server:
        server.reply = lambda request: judged(request, scopes, policy.refusal)
        yield server


def models_of_the_image(folder: Path) -> Path:
    """The hub's cache, with a model of a few hundred kilobytes."""
    model = folder / f"models--{MODEL.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("0")
    small_model(model / "snapshots" / "0", max_position_embeddings=4096)
    for file in (model / "snapshots" / "0").iterdir():
        file.chmod(0o644)  # weights are written for their owner alone
    return folder


def of_the_users(folder: Path) -> Path:
    """A configuration whose policy, data and prompts nobody else may read."""
    config = write_config(
        folder,
        LENIENT | {"preference_loss": 1.0},
        model={"name": MODEL, "max_new_tokens": 8},
        judge={"kind": "openai", "model": "judge-1"},
        cluster={"image": "no-image-is-needed-here"},
    )
    for name in ("questions", "records"):
        shutil.copy(ROOT / f"ontopic/data/gardening/{name}.jsonl", folder / f"{name}.jsonl")
    policy = yaml.safe_load((folder / "policy.yaml").read_text())
    (folder / "policy.yaml").write_text(
        yaml.safe_dump(policy | {"questions": "questions.jsonl", "records": "records.jsonl"})
    )
    shutil.copytree(ROOT / "configs/judge_prompts", folder / "prompts")
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"judge_prompts": "prompts"}))
    folder.chmod(0o700)
    return config


@pytest.fixture(scope="module")
def cluster(postgres: str, chat: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    pytest.importorskip("s3fs", reason="the extra cluster is not installed")
    import psycopg

    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "ALL_PROXY"):  # the clients of S3 and the hub stumble on them
        os.environ.pop(name, None)
    os.environ["NO_PROXY"] = "127.0.0.1"  # as a bank's servers reach one another
    folder = tmp_path_factory.mktemp("cluster")
    for parent in (folder, *folder.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o011)  # another user may go through, and not look
    machines = folder / "machines"
    machines.mkdir()
    with psycopg.connect(f"{postgres}/postgres", autocommit=True) as connection:
        for name in ("state", "mlflow"):
            connection.execute(f"CREATE DATABASE {name}_of_cluster".encode())
    database = f"{postgres}/mlflow_of_cluster"
    python = SecondMachine(folder / "tried").python
    with (
        object_store() as s3,
        zenml_server(folder / "servers") as zenml,
        mlflow_server(folder, database=database, artifacts=f"s3://{BUCKET}/mlflow", environment=s3) as mlflow_uri,
    ):
        own = {
            "ONTOPIC_STATE_URL": f"{postgres}/state_of_cluster",
            "MLFLOW_TRACKING_URI": mlflow_uri,
            "OPENAI_BASE_URL": chat.url,
            "ZENML_CONFIG_PATH": str(folder / "client"),
            "ZENML_STORE_TYPE": "rest",
            "ZENML_STORE_URL": zenml,
            "ZENML_ANALYTICS_OPT_IN": "false",
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{sysconfig.get_paths()['purelib']}",
            "HF_HUB_CACHE": str(models_of_the_image(folder / "hub")),
            MACHINES: str(machines),
            PYTHON: python,
        }
        wanted = {"flavor": FLAVOR, "artifacts": f"s3://{BUCKET}/zenml", "endpoint": s3["MLFLOW_S3_ENDPOINT_URL"]}
        (folder / "register.py").write_text(REGISTER)
        said = subprocess.run(
            [sys.executable, str(folder / "register.py"), json.dumps(wanted)],
            env=environment() | own | s3 | {"ZENML_STORE_USERNAME": USER, "ZENML_STORE_PASSWORD": PASSWORD},
            capture_output=True,
            text=True,
            check=False,
        )
        assert said.returncode == 0, said.stderr[-3000:]
        key = said.stdout.partition("key:")[2].strip()
        yield Cluster(own | {"ZENML_STORE_API_KEY": key}, machines, mlflow_uri, of_the_users(folder / "users"))


@pytest.fixture(scope="module")
def first(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Run:
    state = tmp_path_factory.mktemp("starts")
    return run(state, config=cluster.config, timeout=3000, **cluster.environment)


def test_the_loop_promotes_and_no_step_left_anything_for_another(first: Run, cluster: Cluster) -> None:
    assert first.code == 0, first.err
    assert "ZenML stack: apart. MLflow: http://127.0.0.1" in first.out
    assert "Version 2 is the champion now." in first.out
    client = mlflow.MlflowClient(tracking_uri=cluster.mlflow_uri)
    assert str(client.get_model_version_by_alias(NAME, "champion").version) == "2"
    ran = sorted(path.name.rpartition("-")[0] for path in cluster.machines.iterdir())
    assert {"register_base", "train_challenger", "evaluate_challenger", "promote_challenger"} <= set(ran)
    assert [each for machine in cluster.machines.iterdir() for each in (machine / "work").iterdir()] == []
    for line in first.out.split("Open next:")[1].splitlines():
        if ".html" in line:
            assert "</html>" in Path(line.split(". ", 1)[1].strip()).read_text()


def test_what_a_step_says_to_the_user_is_said_here(cluster: Cluster, tmp_path: Path) -> None:
    config = yaml.safe_load(cluster.config.read_text())
    other = cluster.config.with_name("other.yaml")
    other.write_text(yaml.safe_dump(config | {"model": {"name": "gone/nowhere", "max_new_tokens": 16}}))
    stopped = run(tmp_path / "state", config=other, **cluster.environment)
    assert stopped.code == 1
    (said,) = [line for line in stopped.err.splitlines() if not line.startswith("  … ")]
    assert said.startswith("error: model 'gone/nowhere'"), stopped.err


def registered(cluster: Cluster, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.register_stack", "--name", "prod", "--registry", "ghcr.io/bank"]
    own = {"AWS_ACCESS_KEY_ID": "key-of-s3", "AWS_SECRET_ACCESS_KEY": "secret-of-s3"}
    return subprocess.run(
        [*command, "--artifacts", "s3://bank/ontopic", *options],
        env=environment() | cluster.environment | own | variables,
        cwd=cluster.machines.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_stack_on_kubernetes_is_registered_once(cluster: Cluster) -> None:
    variables = {"ZENML_CONFIG_PATH": str(cluster.machines.parent / "another client")}
    first = registered(cluster, "--context", "prod", **variables)
    assert first.returncode == 0, first.stderr
    assert "stack prod is registered" in first.stdout and "orchestrator (kubernetes) is registered" in first.stdout
    again = registered(cluster, "--context", "prod", **variables)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("is as it was") == 7  # five components, two secrets
    other = registered(cluster, "--context", "test", "--s3-endpoint", "http://s3.bank", **variables)
    assert other.stdout.count("is changed") == 2 and other.stdout.count("is as it was") == 5
    for done in (first, again, other):
        assert not [secret for secret in ("secret-of-s3", "postgresql://") if secret in done.stdout + done.stderr]


def test_what_a_stack_lacks_is_a_sentence(cluster: Cluster) -> None:
    for variables, options, said in (
        ({"ONTOPIC_STATE_URL": ""}, [], "error: ONTOPIC_STATE_URL is not set, and steps on other machines need it"),
        ({}, ["--artifacts", "/mnt/nfs"], "error: --artifacts: /mnt/nfs is no path in S3"),
        ({}, ["--variable", "TOKEN_OF_BANK"], "error: TOKEN_OF_BANK is not set"),
    ):
        done = registered(cluster, *options, **variables)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith(said), done.stderr
