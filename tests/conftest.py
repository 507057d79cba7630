"""Fixtures that several test files share."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's client, which reads it once
if "PYTEST_XDIST_WORKER" in os.environ:  # a process a core: threads of two that wait for each other come to a stop
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

import pytest
from filelock import FileLock
from loopback import ROOT, ChatServer, running_server

from ontopic.config.policy import Policy, load_policy
from ontopic.config.settings import JudgeChoice, LocalJudgeSettings
from ontopic.data.labelled import load_questions
from ontopic.judges.judge import Judge
from ontopic.state.workspace import Workspace


@pytest.fixture(scope="session", autouse=True)
def behind_a_proxy() -> None:
    """As behind a company's proxy, and worse: what minds these settings on its way to this machine fails."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "CURL_CA_BUNDLE"):
        os.environ.pop(name, None)
    os.environ |= {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    os.environ |= {"ALL_PROXY": "socks5://127.0.0.1:9", "SSL_CERT_FILE": "/nowhere", "REQUESTS_CA_BUNDLE": "/nowhere"}


@pytest.fixture(scope="module", autouse=True)
def no_mlflow_of_others() -> Iterator[None]:
    """MLflow keeps its tracking URI in the process and in the environment: neither the shell's nor a file's reaches the
    next file. Nor does the NO_PROXY that it is reached by. And no file leaves a store of MLflow's in the tree."""
    before = _mlflow_in_the_tree()
    for name in ("MLFLOW_TRACKING_URI", "NO_PROXY", "no_proxy"):
        os.environ.pop(name, None)
    yield
    if "mlflow" in sys.modules:
        while sys.modules["mlflow"].active_run() is not None:  # one that a test has begun by setting a tag
            sys.modules["mlflow"].end_run()
        sys.modules["mlflow"].set_tracking_uri(None)
    assert _mlflow_in_the_tree() <= before  # where MLflow puts what nobody gave a place


def _mlflow_in_the_tree() -> set[Path]:
    return {path for name in ("mlruns", "mlartifacts", "mlflow.db") if (path := ROOT / name).exists()}


@pytest.fixture(scope="session")
def session_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder that the tests of one session share, in whichever of pytest-xdist's processes they run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "session-state"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def machine_cache(session_state: Path) -> None:
    """What is made once on a machine is made once a session, and nothing is left in the user's home."""
    os.environ["ONTOPIC_CACHE"] = str(session_state / "cache")


@pytest.fixture
def state_before(tmp_path: Path) -> Path:
    """A copy of a small state folder of OnTopic 0.1: traffic, windows, alerts, keys, labels, registry, dashboard."""
    folder = tmp_path / "state"
    shutil.unpack_archive(ROOT / "tests" / "data" / "state-0.1.tar.gz", folder)
    return folder


@pytest.fixture(scope="session")
def model_folder(session_state: Path) -> Path:
    """The embedded model, converted once a session."""
    from ontopic.models.loading import EMBEDDED, resolve

    with FileLock(session_state / "model.lock"):
        return resolve(EMBEDDED, Workspace(root=session_state))


@pytest.fixture(scope="session")
def gemma_folder(session_state: Path, banking: Policy) -> Path:
    """A small model of Gemma's shape with random weights, made once a session."""
    from gemma_shaped import write_model

    folder = session_state / "gemma"
    with FileLock(session_state / "gemma.lock"):
        if not folder.is_dir():
            texts = [question.question for question in load_questions(banking.questions, split="train")]
            write_model(session_state / "gemma-part", texts[:600])
            (session_state / "gemma-part").rename(folder)
    return folder


@pytest.fixture(scope="session")
def small_banking(session_state: Path, banking: Policy) -> Policy:
    """The banking policy with a third of the questions that teach its judge, which soon has learned them."""
    questions = load_questions(banking.questions)
    taught = [question for question in questions if question.split in ("train", "judge")]
    kept = [*taught[::3], *(question for question in questions if question.split not in ("train", "judge"))]
    path = session_state / "small-banking.jsonl"
    with FileLock(session_state / "policy.lock"):
        if not path.exists():
            path.write_text("".join(question.model_dump_json() + "\n" for question in kept), encoding="utf-8")
    return banking.model_copy(update={"questions": str(path)})


def _learned(policy: Policy, session_state: Path) -> Judge:
    from ontopic.judges.opening import open_judge

    choice = JudgeChoice(settings=LocalJudgeSettings(kind="local"), prompts=ROOT / "configs" / "judge_prompts")
    with FileLock(session_state / "judge.lock"):
        return open_judge(choice, policy, workspace=Workspace(root=session_state))


@pytest.fixture(scope="session")
def local_judge(session_state: Path, small_banking: Policy) -> Judge:
    """The embedded judge on ``small_banking``, trained once a session."""
    return _learned(small_banking, session_state)


@pytest.fixture(scope="session")
def banking_judge(session_state: Path, banking: Policy) -> Judge:
    """The embedded judge of the shipped policy; minutes of training, so for slow tests only."""
    return _learned(banking, session_state)


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    """A running ``ChatServer``; set its ``reply``."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def banking() -> Policy:
    """The shipped banking policy."""
    return load_policy(ROOT / "configs" / "policies" / "banking.yaml")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL, without a database's name, of a PostgreSQL server of this session's own on the loopback interface."""
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not versions:
        pytest.skip("PostgreSQL is not installed (no /usr/lib/postgresql/*/bin/initdb)")
    binaries, folder = versions[-1].parent, Path(tempfile.mkdtemp(prefix="ontopic-postgres-"))
    user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        if shutil.which("runuser") is None:
            pytest.skip("there is no runuser on the PATH, by which root starts PostgreSQL as another")
        user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    control = [*user, str(binaries / "pg_ctl"), "-D", str(folder / "data"), "-w"]
    try:
        initdb = [str(binaries / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        subprocess.run([*user, *initdb, "--locale=C.UTF-8"], check=True, stdout=subprocess.DEVNULL, cwd=folder)
        start = [*control, "-l", str(folder / "log"), "-o", options, "start"]
        subprocess.run(start, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        yield f"postgresql://postgres@127.0.0.1:{port}"
    finally:
        with contextlib.suppress(OSError):
            subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True, cwd=folder)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_database(postgres: str) -> str:
    """The URL of an empty database."""
    return _new_database(postgres)


@pytest.fixture(scope="module")
def database_of_file(postgres: str) -> str:
    """The URL of a database that the tests of one file share."""
    return _new_database(postgres)


@pytest.fixture
def state_database(database_of_file: str) -> Iterator[str]:
    """The URL of a database in which there may be tables of ours, and no row."""
    import psycopg

    yield database_of_file
    with psycopg.connect(database_of_file, autocommit=True) as connection:
        query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE '%_version'"
        tables = ", ".join(f'"{name}"' for (name,) in connection.execute(query))
        if tables:
            connection.execute(f"TRUNCATE {tables} RESTART IDENTITY".encode())


def _new_database(postgres: str) -> str:
    import psycopg

    name = f"ontopic_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(f"{postgres}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return f"{postgres}/{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def tables_at(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where tables of ours can be opened that hold nothing: a file and a URL in turn."""
    return tmp_path / "tables.db" if request.param == "sqlite" else str(request.getfixturevalue("state_database"))


@pytest.fixture(params=["sqlite", "postgresql"])
def either_place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All that a workspace keeps in tables is in its folder, and on PostgreSQL, in turn."""
    if request.param == "postgresql":
        monkeypatch.setenv("ONTOPIC_STATE_URL", str(request.getfixturevalue("state_database")))
    return str(request.param)


@pytest.fixture(params=["folder", "postgresql"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace whose state is in its folder, and one whose state other machines share, in turn."""
    if request.param == "postgresql":
        monkeypatch.setenv("ONTOPIC_STATE_URL", str(request.getfixturevalue("postgres_database")))
    root = tmp_path / "state"
    return Workspace(root=root, mlflow_uri=f"sqlite:///{root / 'mlflow.db'}")


@pytest.fixture(params=["sqlite", "postgresql"])
def store_at(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where an empty traffic store can be made: a file and a URL in turn."""
    if request.param == "sqlite":
        return tmp_path / "a folder" / "traffic #1?.db"
    return str(request.getfixturevalue("postgres_database"))
