"""QLoRA on a model of Gemma's shape, on bitsandbytes' CPU backend: trained, merged, registered, promoted, served, and
round again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mlflow
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from served import openai_client

from ontopic.config.model_settings import Precision
from ontopic.config.training_settings import TrainingSettings
from ontopic.errors import UserError
from ontopic.models.answer import Generation, Sampling
from ontopic.models.loading import load
from ontopic.registry import versions
from ontopic.registry.promotions import open_registry
from ontopic.registry.tracking import open_tracking
from ontopic.registry.versions import RegisteredModel, find
from ontopic.state.whole_file import folder_sha256
from ontopic.state.workspace import Workspace, open_workspace
from ontopic.training.merging import merge
from ontopic.training.nf4_merging import dequantised
from ontopic.training.orpo import TrainingResult, train_orpo
from ontopic.training.preferences import Preference
from serving.deployment import deploy
from serving.process import ServedModel, Serving

pytest.importorskip("bitsandbytes", reason="the extra gpu is not installed")

NAME = "ontopic-gemma"
BRIEF = {"role": "system", "content": "Be brief."}
QUESTION = {"role": "user", "content": "how do I block my card"}
PAIRS = [
    Preference(
        question="how do I block my card",
        history=(BRIEF,),
        chosen="Freeze it in the app.",
        rejected="I can only help with banking.",
        in_scope=True,
        source="reference",
        record_id="1",
    ),
    Preference(
        question="tell me a joke",
        chosen="I can only help with banking.",
        rejected="Why did the chicken cross",
        in_scope=False,
        source="refusal",
        record_id="2",
    ),
]


def train(base: Path, work: Path, *, steps: int, optimizer: str = "paged_adamw_8bit") -> TrainingResult:
    settings = TrainingSettings(
        beta=1.0,
        learning_rate=5e-3,
        epochs=1,
        batch_size=2,
        max_rejected_tokens=4,
        max_steps=steps,
        save_steps=steps,
        lora_rank=64,  # an optimizer's state of fewer than 4,096 weights is left in 32 bits
        lora_alpha=64,
        optimizer=optimizer,
        gradient_checkpointing=True,
    )
    return train_orpo(load(base, "nf4"), base, preferences=PAIRS, settings=settings, work=work)


def register(folder: Path, workspace: Workspace, *, challenger: bool = False) -> RegisteredModel:
    with mlflow.start_run() as run:
        return versions.register(
            NAME,
            folder,
            workspace=workspace,
            digest=folder_sha256(folder),
            run_id=run.info.run_id,
            tags={},
            challenger=challenger,
        )


@pytest.fixture
def workspace(gemma_folder: Path, tmp_path: Path) -> Workspace:
    """A state folder whose champion is the base model."""
    workspace = open_workspace(tmp_path / "state")
    open_tracking(workspace, NAME)
    open_registry(workspace, NAME).ensure_champion(register(gemma_folder, workspace).version)
    return workspace


def improve(workspace: Workspace, work: Path, *, optimizer: str = "paged_adamw_8bit") -> RegisteredModel:
    """A round: the champion is trained in NF4, merged and registered, and the result is promoted."""
    champion = find(NAME, "champion", workspace=workspace).folder
    result = train(champion, work, steps=24, optimizer=optimizer)
    assert torch.uint8 in kinds_of_state(work / "checkpoints" / "checkpoint-24" / "optimizer.pt")
    merge(result.adapter, champion, into=work / "whole", precision="nf4")
    challenger = register(work / "whole", workspace, challenger=True)
    open_registry(workspace, NAME).promote(challenger.version, by="test", why="test")
    return find(NAME, "champion", workspace=workspace)


def kinds_of_state(file: Path) -> set[torch.dtype]:
    """What an optimizer's state is kept in."""
    waiting, kinds = [torch.load(file, weights_only=False)["state"]], set()
    while waiting:
        value = waiting.pop()
        waiting += value.values() if isinstance(value, dict) else []
        kinds |= {value.dtype} if torch.is_tensor(value) else set()
    return kinds


def said(folder: Path, messages: Sequence[dict[str, str]]) -> str:
    """What is answered by the service's own parts, without the process and HTTP around them."""
    deployment = deploy(folder, "1")
    generation = Generation(deployment.prompts.ids(list(messages), 24), Sampling(24))
    deployment.batch.submit([generation])
    try:
        return generation.done.result(60).text
    finally:
        deployment.batch.close()


@pytest.mark.slow
def test_two_rounds_of_training_in_4_bits_leave_a_model_that_answers(workspace: Workspace, tmp_path: Path) -> None:
    for number, optimizer in enumerate(("paged_adamw_8bit", "adamw_bnb_8bit"), start=2):
        champion = improve(workspace, tmp_path / f"version-{number}", optimizer=optimizer)
        assert champion.version == str(number)
        files = {path.name for path in champion.folder.iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= files
        assert "quantization_config" not in (champion.folder / "config.json").read_text()
    assert said(champion.folder, [BRIEF, QUESTION]) == "Freeze it in the app."
    assert said(champion.folder, [{"role": "user", "content": "tell me a joke"}]) == "I can only help with banking."


@pytest.mark.slow
def test_what_was_trained_in_4_bits_is_served(workspace: Workspace, tmp_path: Path) -> None:
    champion = improve(workspace, tmp_path / "round")
    serving = Serving(
        model_folder=champion.folder,
        model_version=champion.version,
        model_name=NAME,
        traffic=tmp_path / "traffic.db",
        state=tmp_path / "serving",
    )
    with ServedModel(serving) as served:
        client = openai_client(served.base_url, served.api_key)
        answer = client.chat.completions.create(model=NAME, messages=[BRIEF, QUESTION], max_tokens=24)  # type: ignore[list-item]
    assert answer.choices[0].message.content == "Freeze it in the app."


@pytest.fixture(scope="module")
def adapter(gemma_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of a few steps."""
    return train(gemma_folder, tmp_path_factory.mktemp("adapter"), steps=3).adapter


def whole(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_an_adapter_is_merged_into_the_weights_that_it_was_trained_on(
    gemma_folder: Path, adapter: Path, tmp_path: Path
) -> None:
    merge(adapter, gemma_folder, into=tmp_path / "whole", precision="nf4")
    merged, base = whole(tmp_path / "whole"), whole(gemma_folder)
    factors = load_file(adapter / "adapter_model.safetensors")
    in_4_bits = dict(dequantised(gemma_folder).model.named_parameters())
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"):
        a, b = (factors[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
        delta, weight = b @ a, f"{name}.weight"  # alpha over rank is 1
        assert delta.dtype == torch.float32
        assert torch.equal(merged[weight], (in_4_bits[weight].float() + delta).to(torch.bfloat16))
        assert not torch.equal(merged[weight], (base[weight].float() + delta).to(torch.bfloat16))
    kept = set(base) - {name.removeprefix("base_model.model.").rpartition(".lora_")[0] + ".weight" for name in factors}
    for name in kept:
        assert torch.equal(merged[name], base[name]), name
    assert "lm_head.weight" not in merged  # it is the embeddings


def test_answers_differ_less_from_the_trained_ones_than_those_of_the_base_plus_adapter(
    gemma_folder: Path, adapter: Path, tmp_path: Path
) -> None:
    model = load(gemma_folder, "nf4")
    trained = PeftModel.from_pretrained(model.model, str(adapter))
    ids = torch.tensor([model.tokenizer("how do I block my card and my other card")["input_ids"]])
    with torch.inference_mode():
        wanted = trained(ids).logits.float()

    @torch.inference_mode()
    def distance(precision: Precision) -> float:
        merge(adapter, gemma_folder, into=tmp_path / precision, precision=precision)
        return float((load(tmp_path / precision, "bfloat16").model(ids).logits.float() - wanted).norm() / wanted.norm())

    assert distance("nf4") < 0.3 * distance("bfloat16")


def test_an_adapter_alone_is_not_loaded(adapter: Path) -> None:
    with pytest.raises(UserError, match="holds a PEFT adapter, and a whole model is needed"):
        load(adapter, "nf4")
