"""The loop with ZenML, on a tiny setting of the path that users run: the real model, few questions, few steps."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
import yaml
from erased_state import found_in
from loops import (
    LENIENT,
    NAME,
    ROOT,
    SECRET,
    STRICT,
    Run,
    assert_nothing_is_half_done,
    environment,
    kill_when,
    run,
    write_config,
)

from ontopic.config.policy import load_policy
from ontopic.config.settings import JudgeChoice
from ontopic.data.labelled import load_questions, load_records
from ontopic.monitoring.window import Window
from ontopic.monitoring.windows import WindowStore
from ontopic.registry.erased_runs import PREFERENCES
from ontopic.registry.promotion_record import Entry, PromotionRecord
from ontopic.traffic.store import TrafficStore


@pytest.fixture(scope="module")
def state(session_state: Path, model_folder: Path) -> Path:
    return session_state


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("config"), LENIENT)


@pytest.fixture(scope="module")
def first(state: Path, config: Path) -> Run:
    return run(state, config=config)


def windows_of(state: Path) -> list[Window]:
    with WindowStore(state / "windows.db", NAME) as windows:
        return windows.closed(-1)


def record_of(state: Path) -> list[Entry]:
    return [
        entry for entry in PromotionRecord(state / "promotions.jsonl").entries(NAME) if entry.kind in ("look", "gate")
    ]


@pytest.fixture
def registry(state: Path, first: Run) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{state}/mlflow.db")


def test_the_loop_trains_and_promotes_and_says_what_to_open(first: Run, state: Path) -> None:
    assert first.code == 0, first.err
    assert "Alert: version 1, " in first.out
    assert "Version 2 is the champion now." in first.out
    assert "new traffic" in first.out
    assert "python run.py ui" in first.out
    for line in first.out.split("Open next:")[1].splitlines():
        if ".html" in line:
            page = Path(line.split(". ", 1)[1].strip())
            assert page.is_relative_to(state)
            assert "</html>" in page.read_text()
    assert not (state / "loop" / "serving.json").exists()
    assert not list((state / "training").glob("*/checkpoints"))


def test_status_and_dashboard_show_the_windows_of_the_loop(first: Run, state: Path, config: Path) -> None:
    closed = [(window.model_version, window.state, window.result is not None) for window in windows_of(state)]
    assert closed == [("1", "closed", True)] * 2 + [("2", "closed", True)]
    said = run(state, "status", config=config).out
    assert "0 records wait" in said
    shown = [line.split() for line in said.splitlines() if line.rstrip().endswith(("ok", "suspected", "detected"))]
    assert [(line[2], line[3]) for line in shown] == [("1", "12"), ("1", "12"), ("2", "8")], said
    (project,) = [path for path in (state / "evidently").iterdir() if path.is_dir()]
    assert len(list((project / "snapshots").iterdir())) == 3


def test_the_registry_holds_both_versions_and_the_evidence(registry: mlflow.MlflowClient, config: Path) -> None:
    versions = {str(v.version): v for v in registry.search_model_versions(f"name = '{NAME}'")}
    assert set(versions) == {"1", "2"}
    assert str(registry.get_model_version_by_alias(NAME, "champion").version) == "2"
    assert registry.get_model_version(NAME, "2").aliases == ["champion"]  # and the challenger no longer
    tags = versions["2"].tags
    assert tags["ontopic.gate"] == "passed"
    assert tags["ontopic.base_version"] == "1"
    assert 0 < json.loads(tags["ontopic.gate.guardrail_score"])["n"] <= 12  # a verdict may be missing
    for name in ("preferences_sha256", "gate.report_sha256", "gate.weights_sha256", "data.policy_sha256"):
        assert len(tags[f"ontopic.{name}"]) == 64
    assert tags["ontopic.gate.weights_sha256"] == tags["ontopic.digest"]
    assert tags["ontopic.data.policy_sha256"] == load_policy(config.parent / "policy.yaml").sha256
    trained = registry.get_run(versions["2"].run_id).data.params
    assert (trained["start_version"], trained["preferences_earlier"]) == ("1", "0")
    assert trained["preferences_sha256"] == tags["ontopic.preferences_sha256"]
    assert PREFERENCES in {file.path for file in registry.list_artifacts(versions["2"].run_id)}
    kept = {file.path for file in registry.list_artifacts(versions["2"].run_id, "gate")}
    assert any(path.endswith(".html") for path in kept)


def test_the_promotion_record_holds_what_the_loop_decided(first: Run, state: Path, config: Path) -> None:
    found = json.loads(run(state, "record", "--json", config=config).out)
    assert [(entry["kind"], entry["version"]) for entry in found] == [
        ("promotion", "1"),
        ("look", "2"),
        ("gate", "2"),
        ("promotion", "2"),
    ]
    gate, promotion = found[2]["facts"], found[3]["facts"]
    assert (promotion["gate_sha256"], promotion["by_hand"], promotion["override"]) == (found[2]["sha256"], False, False)
    assert (gate["gate"], gate["against"], gate["look"], gate["questions"]["n"]) == ("passed", "1", 1, 12)
    assert len(gate["training_data"]["preferences_sha256"]) == 64
    assert gate["settings"]["training"]["max_steps"] == 4
    assert len(gate["files"]) == 7 and all((state / path).is_file() for path in gate["files"])
    done = run(state, "record", "verify", config=config)
    assert (done.code, done.err) == (0, "")
    assert "; all are as they were written" in done.out


def test_traffic_of_the_loop_is_erased_everywhere(first: Run, state: Path, config: Path, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("models", "registry", "cache", "*.pt")
    copied = shutil.copytree(state, tmp_path / "state", ignore=ignored)
    with TrafficStore(state / "traffic.db", NAME) as traffic:
        texts = [text for each in traffic.records() for text in (each.question, each.answer) if len(text) > 12]
    assert len(found_in(copied, *texts)) > 10
    done = run(copied, "traffic", "prune", "--keep", "0", config=config)
    assert done.code == 0, done.err
    assert f"version 2 of {NAME} was trained on some of it" in done.out
    kept = [load_policy(config.parent / "policy.yaml").refusal]
    assert found_in(copied, *(text for text in texts if text not in kept)) == []
    verified = run(copied, "record", "verify", config=config)
    assert (verified.code, verified.err) == (0, "")


def test_training_is_tracked_live(registry: mlflow.MlflowClient) -> None:
    run_id = registry.get_model_version(NAME, "2").run_id
    for metric in ("loss", "rewards/margins", "log_odds_ratio", "learning_rate", "tokens_per_second"):
        assert [point.step for point in registry.get_metric_history(run_id, metric)] == [1, 2, 3, 4], metric


def test_the_state_stays_in_its_folder(first: Run) -> None:
    assert not list(ROOT.glob("mlruns*"))
    assert not (ROOT / ".zen").exists()


def test_no_secret_is_kept_or_shown(first: Run, state: Path) -> None:
    assert SECRET not in first.out + first.err
    kept = [path for path in state.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    assert [path for path in kept if SECRET.encode() in path.read_bytes()] == []


@pytest.mark.slow
def test_a_second_run_reuses_what_has_not_changed(first: Run, state: Path, config: Path) -> None:
    # The champion is another model now, so monitoring runs again; the gate is strict, so nothing changes after it.
    training = yaml.safe_load(config.read_text())["training"] | {"attempts": 2}
    strict = write_config(config.parent / "strict", STRICT, seed=1, training=training)
    second = run(state, config=strict)
    assert second.code == 0, second.err
    assert "The gate refuses version 3; attempt 2 of 2, with another seed" in second.out
    assert "The gate refuses version 4; no attempt is left of 2 (training.attempts)" in second.out
    assert "Version 4 stays a challenger" in second.out
    before, looked = windows_of(state), record_of(state)
    assert [entry.kind for entry in looked if entry.kind in ("look", "gate")] == ["look", "gate"] * 3
    third = run(state, "--json", config=strict)
    assert third.code == 0, third.err
    assert windows_of(state) == before  # what comes from the cache has its windows already
    assert record_of(state) == looked  # and is no new look
    assert "were reused from ZenML's cache" in third.err
    reused = [stage for stage, seconds in json.loads(third.out)["seconds"] if seconds is None]
    assert len(reused) >= 10
    assert "promote challenger" not in reused


@pytest.mark.slow
def test_killed_while_training_the_next_run_goes_on(first: Run, state: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, STRICT, seed=2)
    before = set((state / "training").glob("*/checkpoints/checkpoint-*"))
    # As soon as there is a checkpoint's folder: what is in it is still being written.
    training = lambda: not set((state / "training").glob("*/checkpoints/checkpoint-*")) <= before  # noqa: E731
    assert kill_when(state, config, tmp_path / "log", training), (tmp_path / "log").read_text()
    after = run(state, config=config)
    assert after.code == 0, after.err
    assert "stays a challenger" in after.out
    assert_nothing_is_half_done(state)


def test_evaluate_writes_shares_with_intervals(first: Run, state: Path, config: Path, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    rows = [
        {"question": "when do I prune my roses", "in_scope": True},
        {
            "question": "what's 3 plus 4",
            "in_scope": False,
            "kind": "sums",
            "history": [{"role": "user", "content": "hi"}],
        },
    ]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out.json"
    options = ["--questions", str(questions), "--out", str(out)]
    done = run(state, "evaluate", "--model", "base", *options, config=config)
    assert done.code == 0, done.err
    result = json.loads(out.read_text())
    assert result["version"] == "1"
    for name in ("guardrail_score", "over_refusal", "leak"):
        assert set(result[name]) == {"value", "low", "high", "n"}
    assert [row["question"] for row in result["answers"]] == [row["question"] for row in rows]
    assert {"question", "kind", "in_scope", "answer", "verdict", "score"} <= set(result["answers"][0])
    assert set(result["kinds"]) == {"sums"} and result["kinds"]["sums"]["leak"]["n"] == 1
    assert "By kind of question" in done.out and "sums" in done.out
    unknown = run(state, "evaluate", "--model", "99", *options, config=config)
    assert unknown.code == 1
    assert "its versions are: 1, 2" in unknown.err


def test_judge_prints_the_card_and_skips_bad_rows_only_when_told(state: Path, config: Path, tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    good = {"question": "how deep do I plant tulips", "answer": "About 15 cm deep, tip up.", "label": "pass"}
    records.write_text(json.dumps(good) + '\nno json\n{"question": "why"}\n')
    out = tmp_path / "out.jsonl"
    options = ["--records", str(records), "--out", str(out)]
    stopped = run(state, "judge", *options, config=config)
    assert stopped.code == 1
    assert f"{records}:2: the line is not valid JSON" in stopped.err
    assert f"{records}:3: field 'answer'" in stopped.err
    assert "Traceback" not in stopped.err
    assert not out.exists()
    done = run(state, "judge", *options, "--skip-bad", config=config)
    assert done.code == 0, done.err
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert row["verdict"] in ("pass", "fail")
    assert "accuracy" in done.out
    assert "2 malformed rows were left out" in done.out


def test_a_users_mistake_that_a_step_finds_is_one_sentence(state: Path, first: Run, tmp_path: Path) -> None:
    stopped = run(state, config=write_config(tmp_path, LENIENT, model={"name": "/nowhere", "max_new_tokens": 16}))
    assert stopped.code == 1
    (said,) = [line for line in stopped.err.splitlines() if not line.startswith("  … ")]  # of a slow machine
    assert said.startswith("error: model '/nowhere' is not a folder"), stopped.err


@pytest.mark.slow
def test_under_a_judge_that_may_not_gate_traffic_is_asked_and_nothing_is_decided(
    first: Run, state: Path, tmp_path: Path, registry: mlflow.MlflowClient
) -> None:
    versions = len(registry.search_model_versions(f"name = '{NAME}'"))
    config = write_config(tmp_path, LENIENT, kappa=1.0)
    before = run(state, "alerts", config=config).out
    done = run(state, config=config)
    assert done.code == 0, done.err
    assert "Nothing was trained or promoted: judge local-" in done.out
    assert "may not gate: its kappa is" in done.out
    assert "Monitor:" in done.out and "Alert:" not in done.out and "Improve:" not in done.out
    assert run(state, "alerts", config=config).out == before  # none is raised on such a judge's word
    assert len(registry.search_model_versions(f"name = '{NAME}'")) == versions


def test_ask_answers_and_judges(first: Run, state: Path, config: Path) -> None:
    done = run(state, "ask", "when should I sow carrots?", config=config)
    assert done.code == 0, done.err
    assert "version 2, verdict" in done.out


def test_before_the_first_run_ask_says_what_to_do(model_folder: Path, config: Path, tmp_path: Path) -> None:
    done = run(tmp_path / "new", "ask", "hello", config=config)
    assert done.code == 1
    assert "run `python run.py` first" in done.err
    assert "Traceback" not in done.err


def test_a_gpu_config_says_what_is_missing(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run(tmp_path / "gpu", config=ROOT / "configs/gpu.yaml")
    assert done.code == 1
    assert "needs a CUDA GPU" in done.err
    assert "Traceback" not in done.err


def test_the_local_judge_tells_good_from_bad(state: Path, first: Run) -> None:
    """On the small policy's held-out records, far better than chance."""
    from ontopic.config.settings import LocalJudgeSettings
    from ontopic.judges.opening import open_judge
    from ontopic.records import Record
    from ontopic.state.workspace import Workspace

    policy = load_policy(ROOT / "configs/policies/gardening.yaml")
    judge = open_judge(
        JudgeChoice(settings=LocalJudgeSettings(kind="local"), prompts=ROOT / "configs/judge_prompts"),
        policy,
        workspace=Workspace(root=state),
    )
    questions = load_questions(policy.questions, split="evaluation")
    answers = [policy.refusal if not q.in_scope else str(q.reference) for q in questions]
    verdicts = judge.judge([Record(question=q.question, answer=a) for q, a in zip(questions, answers, strict=True)])
    assert sum(v.outcome == "pass" for v in verdicts) / len(verdicts) > 0.7
    refused = judge.judge([Record(question=q.question, answer=policy.refusal, in_scope=q.in_scope) for q in questions])
    assert all((v.outcome == "pass") != q.in_scope for v, q in zip(refused, questions, strict=True))
    assert judge.judge([Record(question="  ", answer="an answer")])[0].outcome == "unjudged"
    (empty,) = judge.judge([Record(question=next(q.question for q in questions if q.in_scope), answer="")])
    assert empty.outcome == "fail"
    assert {record.label for record in load_records(policy.records)} == {"pass", "fail"}


def test_an_option_before_the_command_is_not_ignored(config: Path) -> None:
    command = [sys.executable, str(ROOT / "run.py"), "--config", str(config), "ask", "hello"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (1, "error: --config stands before the command; put it behind ask\n")
