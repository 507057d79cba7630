from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from torch.nn.functional import linear
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from ontopic.errors import UserError
from ontopic.models.loading import load
from ontopic.training.log_probs import LogProbs, Wanted
from ontopic.training.needed_pairs import Needed
from ontopic.training.packed_trainer import PackedORPOTrainer, _pack

PAIRS = [
    ("how do I block my card", "Freeze it in the app, then order a new one.", "I can only help with banking."),
    (
        "tell me a joke",
        "I can only help with banking.",
        "Why did the chicken cross the road? To be there.",
    ),
    ("pin", "Change it at a cash machine.", "no"),
]


def made(model_folder: Path, folder: Path, lora_modules: str | list[str], *, kind: Any = PackedORPOTrainer) -> Any:
    torch.manual_seed(0)
    language_model = load(model_folder, "float32")
    rows = [{"prompt": f"<|im_start|>user\n{p}<|im_end|>\n", "chosen": c, "rejected": r} for p, c, r in PAIRS]
    config = ORPOConfig(
        output_dir=str(folder),
        beta=0.7,
        bf16=False,
        gradient_checkpointing=False,
        remove_unused_columns=False,
        report_to=[],
        max_length=128,
        use_cpu=True,
    )
    return kind(
        model=language_model.model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=language_model.tokenizer,
        # Random adapters: at their usual start, zero, half of the gradients would be zero.
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=lora_modules, init_lora_weights=False),
    )


@pytest.fixture(scope="module")
def trainer(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> PackedORPOTrainer:
    found: PackedORPOTrainer = made(model_folder, tmp_path_factory.mktemp("orpo"), "all-linear")
    return found


@pytest.fixture(scope="module")
def stock(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ORPOTrainer:
    """TRL's trainer on PEFT's layers, with the same adapters."""
    found: ORPOTrainer = made(model_folder, tmp_path_factory.mktemp("stock"), "all-linear", kind=ORPOTrainer)
    return found


def batch_of(trainer: PackedORPOTrainer) -> dict[str, Any]:
    dataset = trainer.train_dataset
    assert isinstance(dataset, Dataset)
    return trainer.data_collator([dataset[i] for i in range(len(dataset))])


def gradients_of(trainer: ORPOTrainer) -> dict[str, torch.Tensor]:
    """And none are left."""
    found = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    trainer.model.zero_grad()
    return found


def assert_alike(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Each within a thousandth of a matrix's largest value."""
    assert found.keys() == expected.keys() and expected
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= 1e-3 * gradient.abs().max(), name


@pytest.mark.parametrize("alike", [True, False])
def test_one_packed_sequence_gives_the_stock_loss_and_gradient(
    trainer: PackedORPOTrainer, stock: ORPOTrainer, monkeypatch: pytest.MonkeyPatch, alike: bool
) -> None:
    monkeypatch.setattr(trainer, "stock_likelihood", True)
    monkeypatch.setattr(LogProbs, "CHUNK", 7)
    monkeypatch.setattr("ontopic.training.branch_attention._AT_A_TIME", 2)
    batch = batch_of(trainer)
    if not alike:  # prompts that share no beginning
        for name in ("chosen", "rejected"):
            batch[f"{name}_input_ids"][0, 0] = 7
    losses, gradients = [], []
    for side in (stock, trainer):
        loss, _ = side.get_batch_loss_metrics(side.model, batch)
        loss.backward()
        losses.append(loss.item())
        gradients.append(gradients_of(side))
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert_alike(gradients[1], gradients[0])


def test_pairs_that_teach_little_get_no_backward_pass(
    trainer: PackedORPOTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ontopic.training.branch_attention._AT_A_TIME", 2)
    batch = batch_of(trainer)
    needed = trainer.needed
    losses, gradients = {}, {}
    for share in (1.0, 0.7):
        monkeypatch.setattr(needed, "share", share)
        loss, _ = trainer.get_batch_loss_metrics(trainer.model, batch)
        loss.backward()
        losses[share], gradients[share] = loss.item(), gradients_of(trainer)
    assert losses[0.7] == losses[1.0]
    assert needed.pairs is not None and 0 < needed.pairs.sum() < len(PAIRS)
    taken = needed.pairs
    monkeypatch.setattr(needed, "share", 1.0)
    chosen, rejected, *_ = trainer.concatenated_forward(trainer.model, batch)
    (trainer.odds_ratio_loss(chosen, rejected)[0] + chosen)[taken].sum().div(-len(PAIRS)).backward()
    assert_alike(gradients[0.7], gradients_of(trainer))


def test_an_answer_s_last_token_is_not_read(trainer: PackedORPOTrainer) -> None:
    packed = _pack(batch_of(trainer), with_prompts=False, device=torch.device("cpu"))
    rows = [trainer.train_dataset[i] for i in range(len(PAIRS))]
    read = [len(row["prompt_input_ids"]) - packed.shared for row in rows]
    read = [
        n + sum(sum(t != -100 for t in row[f"{name}_labels"]) - 1 for name in ("chosen", "rejected"))
        for n, row in zip(read, rows, strict=True)
    ]
    assert packed.ids.shape[1] == packed.shared + sum(read)
    assert [int(n) for n in (packed.places >= 0).sum(1)] == read


def test_a_pair_of_its_own_prompt_alone_is_packed(trainer: PackedORPOTrainer) -> None:
    # Its prompt is all shared, and of answers of one token nothing is read.
    row = trainer.tokenize_row({"prompt": "pin", "chosen": "a", "rejected": "b", "cut": True})
    batch = trainer.data_collator([row])
    with torch.inference_mode():
        chosen, rejected, *_ = trainer.concatenated_forward(trainer.model, batch)
    assert chosen.isfinite().all() and rejected.isfinite().all()


def test_the_likelihood_is_of_the_chosen_answers_each_pair_counting_the_same(trainer: PackedORPOTrainer) -> None:
    batch = batch_of(trainer)
    with torch.inference_mode():
        chosen, _, _, _, likelihood = trainer.concatenated_forward(trainer.model, batch)
    assert chosen.shape == (len(PAIRS),)
    assert likelihood.item() == pytest.approx(-chosen.mean().item())


def test_only_the_chosen_answer_ends(trainer: PackedORPOTrainer) -> None:
    end = trainer.processing_class.eos_token_id
    for row, (_, chosen, rejected) in zip(trainer.train_dataset, PAIRS, strict=True):
        told = {name: [t for t in row[f"{name}_labels"] if t != -100] for name in ("chosen", "rejected")}
        assert told["chosen"][-1] == end
        assert end not in told["rejected"]
        assert trainer.processing_class.decode(told["chosen"][:-1]) == chosen
        assert trainer.processing_class.decode(told["rejected"]) == rejected


def test_of_a_pair_of_beginnings_no_answer_ends(trainer: PackedORPOTrainer) -> None:
    end = trainer.processing_class.eos_token_id
    row = trainer.tokenize_row({"prompt": "pin", "chosen": "Change it at a", "rejected": "no", "cut": True})
    for answer in ("chosen", "rejected"):
        assert end not in [token for token in row[f"{answer}_labels"] if token != -100]
        assert len(row[f"{answer}_labels"]) == len(row[f"{answer}_input_ids"])


def test_an_output_layer_that_is_to_be_trained_is_refused(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the model's output layer can't be trained"):
        made(model_folder, tmp_path, ["lm_head"])


def test_an_output_layer_s_bias_counts() -> None:
    states, head, bias = torch.randn(9, 4, requires_grad=True), torch.randn(6, 4), torch.randn(6)
    target, weights = torch.arange(9) % 6, torch.randn(9)
    expected = linear(states, head, bias).log_softmax(1)[torch.arange(9), target]
    found, _ = LogProbs.apply(states, head, bias, Wanted(target, target, Needed()))
    torch.testing.assert_close(found, expected)
    slopes = [torch.autograd.grad((each * weights).sum(), states)[0] for each in (found, expected)]
    torch.testing.assert_close(*slopes)
