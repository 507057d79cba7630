"""``export``: each format loads and answers as the version does; a mistake is one sentence and leaves nothing."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import torch
from hub_server import TOKEN, running_hub
from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils import _http
from small_models import small_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner, Result

from ontopic.errors import UserError
from ontopic.models import gguf
from ontopic.registry import versions
from ontopic.registry.promotions import open_registry
from ontopic.registry.tracking import open_tracking
from ontopic.state.whole_file import folder_sha256
from ontopic.state.workspace import open_workspace

NAME = "ontopic-banking"


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with a small model as version 1, and an adapter alone, as of a release before, as 2."""
    folder = tmp_path_factory.mktemp("a state")
    workspace = open_workspace(folder)
    open_tracking(workspace, NAME)
    whole = small_model(folder / "made")
    (whole / "MLmodel").write_text("flavors: {}")  # MLflow's own, which is none of the model's files
    (whole / "requirements.txt").write_text("torch")
    adapter = folder / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    for made, tags in ((whole, {"ontopic.source": "embedded", "ontopic.kind": "base"}), (adapter, {})):
        with mlflow.start_run() as run:
            of = {"digest": folder_sha256(made), "run_id": run.info.run_id, "tags": tags}
            versions.register(NAME, made, workspace=workspace, **of)
    open_registry(workspace, NAME).promote("1", by="Erika", why="the base model")
    return folder


def export(state: Path, *arguments: object) -> Result:
    import run

    return CliRunner().invoke(run.app, ["export", *map(str, arguments), "--state", str(state)])


def test_safetensors_are_the_version_s_own_files_with_a_card(state: Path, tmp_path: Path) -> None:
    out = tmp_path / "an export"
    before = os.umask(0o022)
    try:
        done = export(state, "champion", out)
    finally:
        os.umask(before)
    assert done.exit_code == 0, done.exception
    assert f"version 1 of {NAME} is in {out} (safetensors, " in done.output
    names = {path.name for path in out.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"} <= names
    assert not {"MLmodel", "requirements.txt"} & names
    assert (out / "model.safetensors").read_bytes() == (state / "made" / "model.safetensors").read_bytes()
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "license: apache-2.0" in card and "Erika" not in card
    assert stat.S_IMODE(out.stat().st_mode) == 0o755  # who serves it may be another user


def test_gguf_and_its_source_answer_the_same(state: Path, tmp_path: Path) -> None:
    out = tmp_path / "gguf"
    out.mkdir()  # an empty folder is a new one
    done = export(state, "1", out, "--to", "gguf", "--licence", "gemma")
    assert done.exit_code == 0, done.exception
    assert {path.name for path in out.iterdir()} == {"README.md", f"{NAME}-1.gguf"}
    assert "license: gemma" in (out / "README.md").read_text(encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(state / "made")
    prompt = tokenizer("Where is my card?", return_tensors="pt")
    answers = [
        AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).generate(
            **prompt, max_new_tokens=20, do_sample=False
        )
        for folder, file in ((state / "made", None), (out, f"{NAME}-1.gguf"))
    ]
    assert torch.equal(*answers)
    half = export(state, "1", tmp_path / "half", "--to", "gguf", "--precision", "float16")
    assert half.exit_code == 0, half.exception
    sizes = [next(folder.glob("*.gguf")).stat().st_size for folder in (out, tmp_path / "half")]
    assert sizes[1] < 0.7 * sizes[0]


@pytest.fixture
def hub_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield
    set_client_factory(_http.default_client_factory)


def test_the_hub_gets_what_safetensors_are(
    state: Path, tmp_path: Path, hub_settings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        done = export(state, "1", "bank/ontopic", "--to", "hub")
    assert done.exit_code == 0, done.exception
    assert f"version 1 of {NAME} is on the hub, with its model card: {hub.url}/bank/ontopic/commit/" in done.output
    assert export(state, "1", tmp_path / "same").exit_code == 0
    assert hub.files["bank/ontopic"] == {path.name: path.read_bytes() for path in (tmp_path / "same").iterdir()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("9", "new"), "'ontopic-banking' has no version or alias '9'; its versions are: 1, 2"),
        (("2", "new"), "holds no whole model (config.json and *.safetensors)"),
        (("1", "full"), "is there already; give a new folder"),
        (("1", "full/file"), "is there already; give a new folder"),
        (("1", "full/file/new"), "its folder does not exist; make it, or give another one"),
        (("1", "nowhere/new"), "its folder does not exist; make it, or give another one"),
        (
            ("1", "new", "--precision", "int8"),
            "--precision is for gguf and openvino, and not for safetensors",
        ),
        (("1", "new", "--licence", "MIT License"), "is none of the hub's abbreviations"),
        (("1", "not/a/name", "--to", "hub"), "is no name of a repository"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("kept")
    done = export(state, *arguments)
    assert isinstance(done.exception, UserError), (done.exception, done.output)
    assert said in str(done.exception) and "\n" not in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert (tmp_path / "full" / "file").read_text() == "kept"


def test_an_export_that_breaks_off_leaves_nothing(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf, "write_gguf", full_disk)
    done = export(state, "1", tmp_path / "new", "--to", "gguf")
    assert isinstance(done.exception, UserError)
    assert str(done.exception).startswith(f"{tmp_path / 'new'}: cannot be written (No space left on device); free the")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_openvino_s_files_answer_as_the_version(model_folder: Path, tmp_path: Path) -> None:
    import openvino_genai

    from ontopic.models.chat_template import chat_prompts
    from ontopic.models.loading import load
    from ontopic.models.openvino import write_openvino

    out = tmp_path / "openvino"
    out.mkdir()
    write_openvino(model_folder, out, precision="float32")
    assert not (out / "gguf").exists()
    pipeline = openvino_genai.LLMPipeline(str(out), "CPU", INFERENCE_PRECISION_HINT="f32")
    ours = load(model_folder, "float32")
    settings = openvino_genai.GenerationConfig(max_new_tokens=24, do_sample=False, apply_chat_template=False)
    for question in ("How do I freeze my card?", "Transfer  12.50 EUR to Zoë"):
        (prompt,) = chat_prompts(ours.tokenizer, [[{"role": "user", "content": question}]])
        ids = ours.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        expected = ours.model.generate(**ids, max_new_tokens=24, do_sample=False)[0, ids["input_ids"].shape[1] :]
        said = pipeline.generate(prompt, settings)
        assert said == ours.tokenizer.decode(expected, skip_special_tokens=True)
    shutil.rmtree(out)
