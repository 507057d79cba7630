from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from loopback import ROOT

from ontopic.commands.readiness import check_ready
from ontopic.config.model_settings import ModelSettings
from ontopic.config.settings import load_settings
from ontopic.errors import UserError
from ontopic.models.loading import load


def test_importing_the_models_leaves_the_progress_bars_of_transformers_alone() -> None:
    code = (
        "import ontopic.models.loading, ontopic.models.sentence_encoder\n"
        "from transformers.utils.logging import is_progress_bar_enabled\n"
        "assert is_progress_bar_enabled()\n"
        "ontopic.models.loading.hide_progress_bars()\n"
        "assert not is_progress_bar_enabled()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.fixture
def base_model(model_folder: Path, tmp_path: Path) -> Path:
    """The embedded model without its chat template, as a base model comes."""
    folder = tmp_path / "base"
    shutil.copytree(model_folder, folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def ready(name: Path) -> None:
    settings = load_settings(ROOT / "configs" / "local.yaml")
    check_ready(settings.model_copy(update={"model": ModelSettings(name=str(name))}))


def test_a_base_model_is_refused_before_any_work(base_model: Path, model_folder: Path) -> None:
    ready(model_folder)
    for refuses in (ready, load):
        with pytest.raises(UserError, match=r"holds a base model: .* such as google/gemma-1\.1-2b-it"):
            refuses(base_model)


def test_a_model_without_a_tokenizer_is_refused_before_any_work(base_model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no model: there is no config\.json"):
        ready(tmp_path / "empty")
    for content in ("", "{}", '{"version": "1.0"}', '{"added_tokens": [], "model": 5}', "[" * 9999, "\0" * 9):
        (base_model / "tokenizer.json").write_text(content)
        with pytest.raises(UserError, match="holds no tokenizer that can be read"):
            ready(base_model)
    (base_model / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="holds no tokenizer that can be read"):
        ready(base_model)


def test_an_adapter_is_refused_before_any_work(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    for refuses in (ready, load):
        with pytest.raises(UserError, match="holds a PEFT adapter, and a whole model is needed: merge it"):
            refuses(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 1000])
def test_weights_that_are_cut_are_refused(model_folder: Path, tmp_path: Path, kept: int) -> None:
    for file in model_folder.iterdir():
        if file.suffix == ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes()[:kept])
        else:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="holds no weights that can be read"):
        load(tmp_path)


def test_a_model_of_the_hub_that_cannot_be_had_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="could not be had from the Hugging Face hub"):
        ready(Path("nobody/no-such-model"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(UserError, match="'/nowhere' is not a folder"):
        ready(Path("/nowhere"))
    with pytest.raises(UserError, match="ALL_PROXY in the environment names a SOCKS proxy"):
        ready(Path("nobody/no-such-model"))
