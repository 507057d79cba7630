"""The loop on a state folder that was moved, and in which others have deleted things."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import mlflow
import pytest
import yaml
from loops import LENIENT, NAME, new_state, run, write_config


def quiet_config(folder: Path) -> Path:
    """A loop that only monitors: no window is low enough to train for."""
    config = write_config(folder, LENIENT)
    policy = yaml.safe_load((folder / "policy.yaml").read_text())
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy | {"alert_threshold": 0.001}))
    return config


def contents(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def link_or_copy(source: str, target: str) -> None:
    """Weights are linked, which nobody writes into."""
    (os.link if source.endswith(".safetensors") else shutil.copy2)(source, target)


@pytest.mark.slow
def test_a_copy_of_a_state_folder_goes_on_and_leaves_the_original_alone(model_folder: Path, tmp_path: Path) -> None:
    original, config = new_state(tmp_path, model_folder), write_config(tmp_path, LENIENT)
    first = run(original, config=config)
    assert "Version 2 is the champion now." in first.out, first.err
    copy, before = tmp_path / "my stäte & more", contents(original)
    shutil.copytree(original, copy, copy_function=link_or_copy)
    quiet = quiet_config(tmp_path / "quiet")
    asked = run(copy, "ask", "When should I sow carrots?", config=config)
    assert "version 2, verdict" in asked.out, asked.err
    again = run(copy, config=quiet)
    assert again.code == 0, again.err
    assert "version 2, is served" in again.out
    assert contents(original) == before
    names = [str(path) for path in copy.rglob("*") if path.is_file() and path.name != "serving.log"]
    old = str(original).encode()
    assert [name for name in names if old in Path(name).read_bytes()] == []
    shutil.rmtree(original)
    assert run(copy, "promote", "1", "--why", "the base", config=config).code == 0


@pytest.mark.slow
def test_what_others_have_deleted_is_made_again(model_folder: Path, tmp_path: Path) -> None:
    state, config = new_state(tmp_path, model_folder), quiet_config(tmp_path)
    assert run(state, config=config).code == 0
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{state}/mlflow.db")
    experiment = client.get_experiment_by_name(NAME)
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    client.delete_registered_model(NAME)
    shutil.rmtree(state / "zenml" / "artifacts")
    shutil.rmtree(state / "reports")
    configuration = state / "zenml" / "config.yaml"
    # As ZenML leaves it at a dashboard that has been stopped.
    store = {"store": {"type": "rest", "url": "http://127.0.0.1:9"}, "active_stack_id": None}
    configuration.write_text(yaml.safe_dump(yaml.safe_load(configuration.read_text()) | store))
    variables = {"ZENML_CONFIG_PATH": f"{state}/zenml/", "ZENML_ACTIVE_STACK_ID": "none", "MLFLOW_RUN_ID": "none"}
    again = run(state, config=config, **variables)
    assert again.code == 0, again.err
    assert "stages of earlier runs made was removed; where it is needed, they run again" in again.out
    assert "was deleted; it is restored, with its runs" in again.err
    assert str(client.get_model_version_by_alias(NAME, "champion").version) == "1"
    assert yaml.safe_load(configuration.read_text())["store"]["url"].startswith("sqlite:////")
    third = run(state, config=config)
    assert third.code == 0, third.err
    assert "removed" not in third.out and "were reused from ZenML's cache" in third.out
