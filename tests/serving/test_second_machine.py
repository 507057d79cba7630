"""A second machine shares nothing with the first but MLflow's server, and has the champion's answers word for word."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import mlflow
import psutil
import pytest
from loopback import ROOT
from object_store import BUCKET, object_store
from second_machine import SecondMachine, end
from served import openai_client
from whole_models import ASKED, NAME, plain, random_adapter, said, tiny_model

from ontopic.registry.promotions import open_registry
from ontopic.registry.tracking import open_tracking
from ontopic.state.workspace import open_workspace
from ontopic.training.registering import register_base, register_trained
from serving.keys import KeyStore

TOKENS = 12

LOADS = f"""
import json, sys
from pathlib import Path
import mlflow
from transformers import AutoModelForCausalLM, AutoTokenizer
from ontopic.registry.versions import find
from ontopic.state.workspace import open_workspace
from ontopic.models.loading import load
from ontopic.models.generation import generate

asked = json.loads(sys.argv[1])
chats = [[{{"role": "user", "content": text}}] for text in asked]
name, most = {NAME!r}, {TOKENS}
pipeline = mlflow.transformers.load_model(f"models:/{{name}}@champion")
answers = {{"mlflow": [pipeline(c, max_new_tokens=most, return_full_text=False)[0]["generated_text"] for c in chats]}}
folder = find(name, "champion", workspace=open_workspace(Path("state"))).folder
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
answers["transformers"] = []
for chat in chats:
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    out = model.generate(**ids, max_new_tokens=most)[0, ids["input_ids"].shape[1]:]
    answers["transformers"].append(tokenizer.decode(out, skip_special_tokens=True))
answers["ontopic"] = [answer.text for answer in generate(load(folder, "float32"), chats, max_new_tokens=most)]
print(json.dumps(answers))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, process: psutil.Popen, log: Path) -> None:
    deadline = time.monotonic() + 400
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(0.3)


@pytest.fixture(scope="module")
def first_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    folder.chmod(0o700)
    return folder


@pytest.fixture(scope="module")
def server(no_mlflow_of_others: None, first_folder: Path) -> Iterator[str]:
    """The URL of an MLflow server whose artifacts are in an object store, which it alone has the keys of."""
    with object_store() as store:
        url = f"http://127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "mlflow", "server", "--port", url.rpartition(":")[2], "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{first_folder}/server.db"]
        command += ["--artifacts-destination", f"s3://{BUCKET}/artifacts"]
        log = first_folder / "server.log"
        variables = {"NO_PROXY": "127.0.0.1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        variables["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # ten processes that nothing here needs
        own = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        with log.open("wb") as output:
            process = psutil.Popen(command, cwd=first_folder, env=own | store | variables, stdout=output, stderr=output)
        try:
            wait_for(f"{url}/health", process, log)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("MLFLOW_TRACKING_URI", url)
                yield url
        finally:
            end(process)
            mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def expected(server: str, model_folder: Path, first_folder: Path) -> list[str]:
    """What the champion says that the first machine has made."""
    workspace = open_workspace(first_folder / "state")
    open_tracking(workspace, NAME)
    folder = tiny_model(workspace.models / "tiny", model_folder)
    with mlflow.start_run() as run:
        base = register_base(NAME, folder, workspace=workspace, run_id=run.info.run_id, tags={})
    adapter = random_adapter(workspace.training / "0" / "adapter", base.folder)
    with mlflow.start_run() as run:
        version = register_trained(
            adapter, base, precision="float32", workspace=workspace, run_id=run.info.run_id, tags={}
        )
    registry = open_registry(workspace, NAME)
    registry.ensure_champion(base.version)
    registry.promote(version.version, by="the first machine", why="it is better")
    return said(version.folder, TOKENS)


@pytest.fixture
def second(server: str, expected: list[str], first_folder: Path) -> Iterator[SecondMachine]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's are its user's alone
        Path(folder).chmod(0o755)
        machine = SecondMachine(Path(folder) / "zweite Maschine", MLFLOW_TRACKING_URI=server)
        assert os.geteuid() != 0 or not machine.may_read(first_folder / "state")
        yield machine


@pytest.mark.slow
def test_mlflow_transformers_and_we_load_the_champion_there(second: SecondMachine, expected: list[str]) -> None:
    answers = json.loads(second.run("-c", LOADS, json.dumps(ASKED)).splitlines()[-1])
    answers = {way: [plain(text) for text in texts] for way, texts in answers.items()}
    assert answers == {"mlflow": expected, "transformers": expected, "ontopic": expected}


@pytest.mark.slow
def test_mlflows_scoring_server_serves_it_there(second: SecondMachine, expected: list[str], tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "models-serve.log"
    arguments = ["-m", "mlflow", "models", "serve", "-m", f"models:/{NAME}@champion", "--env-manager", "local"]
    process = second.start(log, *arguments, "--port", str(port))
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        answers = []
        for text in ASKED:
            request = {"messages": [{"role": "user", "content": text}], "max_tokens": TOKENS}
            reply = httpx.post(f"http://127.0.0.1:{port}/invocations", json=request, timeout=120, trust_env=False)
            assert reply.status_code == 200, reply.text
            (answer,) = reply.json()
            answers.append(plain(answer["choices"][0]["message"]["content"]))
        assert answers == expected
    finally:
        end(process)


@pytest.mark.slow
def test_our_service_serves_it_there(second: SecondMachine, expected: list[str], tmp_path: Path) -> None:
    """As the container does: by ``ONTOPIC_MODEL_URI``, with a folder for traffic and keys, and no state folder."""
    data = second.home / "data"
    second.run("-c", f"import pathlib; pathlib.Path({str(data)!r}).mkdir()")
    key = KeyStore(tmp_path / "keys.db").make("second")
    (tmp_path / "keys.db").rename(second.home / "keys.db")
    (second.home / "keys.db").chmod(0o644)
    port, log = free_port(), tmp_path / "serving.log"
    second.environment |= {
        "BENTOML_HOME": str(data / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "ONTOPIC_MODEL_URI": f"models:/{NAME}@champion",
        "ONTOPIC_MODEL_NAME": NAME,
        "ONTOPIC_MODEL_VERSION": "2",
        "ONTOPIC_MAX_NEW_TOKENS": str(TOKENS),
        "ONTOPIC_PRECISION": "float32",
        "ONTOPIC_TRAFFIC": str(data / "traffic.db"),
        "ONTOPIC_KEYS": str(second.home / "keys.db"),
    }
    arguments = ["-m", "bentoml", "serve", "serving.service:Assistant", "--working-dir", str(ROOT)]
    process = second.start(log, *arguments, "--host", "127.0.0.1", "--port", str(port))
    try:
        wait_for(f"http://127.0.0.1:{port}/readyz", process, log)
        answers = []
        with openai_client(f"http://127.0.0.1:{port}/v1", key) as client:
            for text in ASKED:
                answer = client.chat.completions.create(
                    model=NAME, messages=[{"role": "user", "content": text}], max_tokens=TOKENS
                )
                answers.append(plain(str(answer.choices[0].message.content)))
        assert answers == expected
    finally:
        end(process)
