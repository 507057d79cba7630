"""A second version on one copy of the weights: it answers as it would alone, and takes no memory for what is shared."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tuned_models import small_base, tuned

from ontopic.models.beside import load_beside
from ontopic.models.generation import generate
from ontopic.models.loading import LanguageModel, load

QUESTIONS = [[{"role": "user", "content": f"What is {i} plus {i}?"}] for i in range(4)]


@pytest.fixture(scope="module")
def folders(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("beside")
    base = small_base(root / "base", model_folder)
    return {
        "base": base,
        "one": tuned(base, root / "one", seed=1),
        "two": tuned(base, root / "two", seed=2, rank=8),
    }


def own_bytes(model: LanguageModel, beside: LanguageModel) -> int:
    """What a model takes besides another one."""
    theirs = {each.data_ptr() for each in (*beside.model.parameters(), *beside.model.buffers())}
    own = {each.data_ptr(): each.nbytes for each in (*model.model.parameters(), *model.model.buffers())}
    return sum(n for pointer, n in own.items() if pointer not in theirs)


def answers(model: LanguageModel) -> list[str]:
    return [each.text for each in generate(model, QUESTIONS, max_new_tokens=12)]


@pytest.mark.parametrize(
    ("champion", "challenger"), [pytest.param("one", "two", marks=pytest.mark.slow), ("base", "two"), ("two", "base")]
)
def test_it_answers_as_alone_and_shares_the_weights(folders: dict[str, Path], champion: str, challenger: str) -> None:
    loaded, alone = (load(folders[each], "float32") for each in (champion, challenger))
    before = answers(loaded)
    beside = load_beside(loaded, folders[champion], folder=folders[challenger], precision="float32")
    assert answers(beside) == answers(alone) != before
    assert answers(loaded) == before  # the first is what it was
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        assert torch.allclose(beside.model(ids).logits, alone.model(ids).logits, atol=1e-4)
    matrices = {"one": 4, "two": 8, "base": 0}
    assert own_bytes(beside, loaded) < 3000 * (matrices[champion] + matrices[challenger]) * 4 / 2
    assert own_bytes(alone, loaded) > 6_000_000


@pytest.mark.slow
@pytest.mark.parametrize("other", ["norm", "linear", "missing", "kind"])
def test_what_differs_otherwise_is_loaded_whole(folders: dict[str, Path], tmp_path: Path, other: str) -> None:
    import shutil

    folder = tmp_path / "two"
    shutil.copytree(folders["two"], folder)
    weights = load_file(folder / "model.safetensors")
    if other == "norm":
        weights["model.norm.weight"] *= 1.01
    elif other == "linear":
        weights["model.layers.1.mlp.down_proj.weight"][3, 3] += 0.05
    elif other == "missing":
        shutil.rmtree(folder / "adapter")
    else:
        matrices = load_file(folder / "adapter" / "adapter_model.safetensors")
        matrices["base_model.model.model.embed_tokens.lora_embedding_A"] = torch.zeros(2, 2)
        save_file(matrices, folder / "adapter" / "adapter_model.safetensors")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    loaded = load(folders["one"], "float32")
    beside = load_beside(loaded, folders["one"], folder=folder, precision="float32")
    assert answers(beside) == answers(load(folder, "float32"))
    assert own_bytes(beside, loaded) > 6_000_000
