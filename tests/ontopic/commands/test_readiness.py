"""All that a configuration lacks is said at once, a sentence each, and nothing is begun."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from loopback import ROOT

from ontopic.commands.readiness import check_ready
from ontopic.config.settings import Settings, load_settings
from ontopic.errors import UserError

GPU = ROOT / "configs" / "gpu.yaml"


def missing(settings: Settings) -> list[str]:
    """The beginnings of what is said, in order."""
    with pytest.raises(UserError) as caught:
        check_ready(settings)
    assert not any("\n" in sentence for sentence in caught.value.mistakes)
    return [re.split(r"[,;]| \((?=\w+Error\))", sentence)[0] for sentence in caught.value.mistakes]


@pytest.fixture(autouse=True)
def without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HF_TOKEN", "ONTOPIC_SIGNING_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def local() -> Settings:
    return load_settings(ROOT / "configs" / "local.yaml")


def changed(settings: Settings, section: str, **values: Any) -> Settings:
    return settings.model_copy(update={section: getattr(settings, section).model_copy(update=values)})


@pytest.mark.skipif("torch" in sys.modules and sys.modules["torch"].cuda.is_available(), reason="there is a GPU")
def test_the_gpu_configuration_names_all_that_it_lacks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setenv("ONTOPIC_SIGNING_KEY", "/nowhere")
    settings = load_settings(GPU)
    assert settings.teacher is not None
    assert missing(settings) == [
        "ONTOPIC_SIGNING_KEY: /nowhere: the key cannot be read (No such file or directory)",
        "model.precision is nf4",
        "bitsandbytes",
        f"model {settings.model.name!r} is not a folder and could not be had from the Hugging Face hub",
        "an LLM is configured but OPENAI_API_KEY is not set",  # of judge and teacher, once
    ]


def test_nothing_is_begun_where_something_lacks(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "run.py"), "--config", str(GPU), "--state", str(tmp_path / "state")]
    left = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=left, check=False)
    said = [line for line in done.stderr.splitlines() if not line.startswith("  … ")]  # of a slow machine
    assert done.returncode == 1 and "ZenML" not in done.stdout
    assert len(said) >= 2 and all(line.startswith("error: ") for line in said), done.stderr
    assert not list((tmp_path / "state").glob("*.db"))


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        ("training", {"optimizer": "paged_lion_8bit"}, "bitsandbytes"),
        ("training", {"optimizer": "rmsprop_bnb"}, "bitsandbytes"),
        ("training", {"optimizer": "adam"}, "training.optimizer: Transformers has none called 'adam'"),
    ],
    ids=["8 bits", "of bitsandbytes", "unknown"],
)
def test_an_optimizer_that_cannot_be_had_is_told_before_any_work(
    local: Settings, monkeypatch: pytest.MonkeyPatch, section: str, values: dict[str, Any], said: str
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    check_ready(local)
    assert missing(changed(local, section, **values)) == [said]


def test_processes_without_gpus_of_their_own_are_told_before_any_work(
    local: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert missing(changed(local, "training", processes=2)) == ["training.processes is 2 and this machine has 1 GPUs"]


def test_judges_beside_and_in_panels_are_asked_for_their_keys(local: Settings) -> None:
    llm = {"kind": "openai", "model": "m", "api_key_variable": "KEY_OF_A"}
    values = local.model_dump(mode="json") | {
        "judge": {"kind": "panel", "judges": [{"kind": "local"}, llm]},
        "judges_beside": [{"name": "b", "judge": llm | {"api_key_variable": "KEY_OF_B"}}],
    }
    assert missing(Settings.model_validate(values)) == [
        "an LLM is configured but KEY_OF_A is not set",
        "an LLM is configured but KEY_OF_B is not set",
    ]
