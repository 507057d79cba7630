"""Models of a few megabytes with random weights and the embedded model's tokenizer, and adapters of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from ontopic.models.generation import generate
from ontopic.models.loading import load

NAME = "ontopic-test"
"""The registered model."""

ASKED = ["how do I block my card", "tell me a joke", "Überweisung nach Zürich?"]


def tiny_model(folder: Path, tokenizer: Path, dtype: torch.dtype = torch.float32) -> Path:
    """A model with two blocks, whose tokenizer and chat template are those of the model in ``tokenizer``."""
    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        **sizes,
        vocab_size=49152,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        initializer_range=0.5,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tokenizer / name, folder / name)
    return folder


def random_adapter(folder: Path, base: Path, seed: int = 0) -> Path:
    """An adapter that changes what the base says, and names it by its path, as PEFT does."""
    torch.manual_seed(seed)
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj", "down_proj"])
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora)
    for name, weights in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.5)
    tuned.save_pretrained(str(folder))
    return folder


def plain(text: str) -> str:
    """An answer without white space around it, and without half a character at its end, which some show and others
    hold back."""
    return text.strip().rstrip("\ufffd").rstrip()


def said(folder: Path, limit: int = 12) -> list[str]:
    """A model's greedy answers to ``ASKED``, in float32."""
    chats = [[{"role": "user", "content": text}] for text in ASKED]
    return [plain(answer.text) for answer in generate(load(folder, "float32"), chats, max_new_tokens=limit)]
