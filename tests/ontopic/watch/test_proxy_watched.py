"""`watch` on another server's model: windows and alerts as ever, and nothing is trained. What needs weights says so."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from labelled_judge import right_on_labelled
from loopback import ROOT, ChatServer
from served import proxy_config
from typer.testing import CliRunner

import run
from ontopic.config.settings import load_settings
from ontopic.errors import UserError
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Record
from ontopic.state.workspace import open_workspace
from ontopic.traffic.store import TrafficStore

MODEL = "ontopic-gardening"
Invoke = Callable[..., str]


@pytest.fixture
def invoke(chat_server: ChatServer, tmp_path: Path) -> Invoke:
    """Gives a command on a proxy to the chat server, which is the judge too: right on labelled records."""
    chat_server.reply = right_on_labelled()
    judge = {"kind": "openai", "model": "grader", "base_url": chat_server.url}
    config = proxy_config(tmp_path, chat_server.url, judge=judge)

    def give(*command: str) -> str:
        done = CliRunner().invoke(run.app, [*command, "--config", str(config), "--state", str(tmp_path / "state")])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.output

    return give


def test_an_alarm_is_raised_and_nothing_is_trained(invoke: Invoke, tmp_path: Path, either_place: str) -> None:
    workspace = open_workspace(tmp_path / "state")
    start = datetime.now(UTC) - timedelta(hours=1)
    with TrafficStore(workspace.traffic, MODEL) as traffic:
        traffic.add_many(
            Record(
                question=f"How do I prune rose {i}?",
                answer="Buy shares of it.",
                model_version="gpt-4o",
                asked_at=start + timedelta(seconds=i),
            )
            for i in range(120)
        )
    said = invoke("watch", "--once", "--since", "1d")
    assert f"{MODEL}, a proxy to gpt-4o, whose weights are not here, is looked at once; nothing is trained" in said
    assert "120 new records; 2 windows closed" in said
    assert "Not retrained: the weights are another server's" in said
    assert "Alert 1 (critical, off topic)" in said
    with WindowStore(workspace.windows, MODEL) as windows:
        assert [w.result.status for w in windows.closed(-1) if w.result] == ["detected"] * 2
    status = invoke("status")
    assert "gpt-4o, another server's; nothing is trained" in status
    assert "champion" not in status
    assert "nothing to do" in invoke("watch", "--once")
    made = {path.name for path in workspace.root.iterdir()}
    databases = {"traffic.db", "windows.db", "alerts.db", "verdicts.db"}
    assert databases & made == (databases if either_place == "sqlite" else set())


@pytest.mark.parametrize(
    "command",
    [(), ("evaluate", "--questions", "questions.jsonl", "--out", "out.json"), ("ask", "How do I prune roses?")],
    ids=["loop", "evaluate", "ask"],
)
def test_what_needs_weights_says_so_in_a_sentence(invoke: Invoke, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "state").mkdir()
    TrafficStore(tmp_path / "state" / "traffic.db", MODEL).close()
    (tmp_path / "questions.jsonl").write_text('{"question": "q?", "in_scope": true}\n')
    given = [str(tmp_path / part) if part.endswith((".jsonl", ".json")) else part for part in command]
    with pytest.raises(UserError, match=r"^the (loop|champion) needs weights, .* are another server's"):
        invoke(*given)
    assert not (tmp_path / "out.json").exists()


def test_the_sample_configuration_is_a_proxy() -> None:
    upstream = load_settings(ROOT / "configs" / "proxy.yaml").serving.upstream
    assert upstream is not None
    assert upstream.model == "llama3.2"


@pytest.mark.parametrize("missing", ["base_url", "model"])
def test_a_proxy_has_a_server_and_its_model(tmp_path: Path, missing: str) -> None:
    config = proxy_config(tmp_path, "http://127.0.0.1:1/v1", **{missing: ""})
    with pytest.raises(UserError, match=f"'serving.{missing}' is wrong: serving.backend is openai"):
        load_settings(config)


def test_a_model_of_ones_own_is_described_as_ever(tmp_path: Path) -> None:
    config = proxy_config(tmp_path, "http://127.0.0.1:1/v1", backend="weights")
    with pytest.raises(UserError, match="the key 'training' is missing"):
        load_settings(config)
