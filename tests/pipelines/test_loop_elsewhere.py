"""The loop with an LLM as judge and teacher, on an MLflow server or a ZenML stack of the user's."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
from loopback import ChatServer, Reply
from loops import LENIENT, NAME, ROOT, environment, new_state, run, write_config

from ontopic.config.policy import load_policy
from ontopic.data.labelled import load_questions


@pytest.mark.slow
def test_the_loop_runs_with_an_llm_as_judge_and_as_teacher(
    model_folder: Path, tmp_path: Path, chat_server: ChatServer
) -> None:
    policy = load_policy(ROOT / "configs/policies/gardening.yaml")
    scopes = {q.question: q.in_scope for q in load_questions(policy.questions)}

    def reply(request: dict[str, Any]) -> Reply:
        prompt = request["messages"][-1]["content"]
        if request["messages"][0]["role"] == "system":
            return Reply("Wait for spring, then water it well.")
        if "You judge whether" not in prompt:  # the naive prompt, of which this judge makes nothing
            return Reply('{"verdict": "pass"}')
        question, _, answer = prompt.rpartition("User (the question):\n| ")[2].partition("\nAnswer: ")
        question = question.partition("\n")[0]  # the fence follows
        in_scope, declined = scopes.get(question, True), policy.refusal in answer
        verdict = "pass" if in_scope != declined else "fail"
        said = {"explanation": "Said so.", "in_scope": in_scope, "declined": declined, "verdict": verdict}
        return Reply(json.dumps(said))

    chat_server.reply = reply
    config = write_config(
        tmp_path, LENIENT, judge={"kind": "openai", "model": "judge-1"}, teacher={"model": "teacher-1"}
    )
    state = new_state(tmp_path, model_folder)
    done = run(state, config=config, OPENAI_BASE_URL=chat_server.url)
    assert done.code == 0, done.err
    cards = [line for line in done.out.splitlines() if line.startswith("judge        openai-judge-1-")]
    assert [card.split("-")[3] for card in cards] == ["rubric", "naive"]
    assert "Version 2 is the champion now." in done.out
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{state}/mlflow.db")
    prompts = {f"ontopic-judge-{path.stem}" for path in (ROOT / "configs/judge_prompts").glob("*.txt")}
    assert {prompt.name for prompt in client.search_prompts()} == prompts
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    params = {name: value for each in client.search_runs(experiments) for name, value in each.data.params.items()}
    assert int(params["preferences_chosen_teacher"]) > 0


@pytest.fixture
def their_mlflow(tmp_path: Path) -> Iterator[str]:
    """The address of a tracking server of the user's."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/theirs.db"]
    command += ["--artifacts-destination", str(tmp_path / "theirs")]
    own = environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # ten processes that nothing here needs
    server = psutil.Popen(command, cwd=tmp_path, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        for process in [*server.children(recursive=True), server]:
            process.kill()
        server.wait()


THEIR_STACK = """
import sys
from zenml.client import Client
client = Client()
folder, uri = sys.argv[1:]
client.create_stack_component("theirs", "local", "artifact_store", {"path": folder})
client.create_stack_component("theirs", "mlflow", "experiment_tracker", {
    "tracking_uri": uri, "tracking_username": "u", "tracking_password": "p"})
parts = {"orchestrator": "default", "artifact_store": "theirs", "experiment_tracker": "theirs"}
client.create_stack("theirs", parts)
client.activate_stack("theirs")
"""


@pytest.mark.slow
@pytest.mark.parametrize("by", ["variable", "stack"])
def test_a_tracking_server_or_a_stack_of_the_users_is_respected(
    by: str, their_mlflow: str, model_folder: Path, tmp_path: Path
) -> None:
    own = {"MLFLOW_TRACKING_URI": their_mlflow}
    if by == "stack":
        (tmp_path / "artifacts").mkdir()
        own = {"ZENML_CONFIG_PATH": str(tmp_path / "zenml"), "ZENML_ANALYTICS_OPT_IN": "false"}
        (tmp_path / "stack.py").write_text(THEIR_STACK)
        command = [sys.executable, str(tmp_path / "stack.py"), str(tmp_path / "artifacts"), their_mlflow]
        subprocess.run(command, check=True, capture_output=True, env=environment() | own)
    state, config = new_state(tmp_path, model_folder), write_config(tmp_path, LENIENT)
    done = run(state, config=config, **own)
    assert done.code == 0, done.err
    assert f"ZenML stack: {'theirs' if by == 'stack' else 'ontopic'}. MLflow: {their_mlflow}" in done.out
    assert "Version 2 is the champion now." in done.out
    assert not (state / "mlflow.db").exists()
    client = mlflow.MlflowClient(tracking_uri=their_mlflow)
    assert str(client.get_model_version_by_alias(NAME, "champion").version) == "2"
    asked = run(state, "ask", "when should I sow carrots?", config=config, **own)
    assert "version 2, verdict" in asked.out, asked.err
