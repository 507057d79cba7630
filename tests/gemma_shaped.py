"""A small model of Gemma's shape with random weights, and a tokenizer of its family, made on the spot.

What is Gemma's: one head of keys for all queries, heads that are larger than their share of the width, embeddings that
are tied and scaled, norms around one; byte-level fallback with ``▁`` for a space; a chat template that refuses the role
``system`` and two turns of one role in a row (arXiv 2403.08295).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import GemmaConfig, GemmaForCausalLM, GemmaTokenizer, GenerationConfig

TURNS = ["<start_of_turn>", "<end_of_turn>"]
TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def write_tokenizer(folder: Path, texts: Sequence[str], vocabulary: int = 600) -> GemmaTokenizer:
    """A tokenizer of Gemma's family, learned on ``texts``."""
    first = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *TURNS]
    learned = Tokenizer(BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    learned.normalizer = normalizers.Replace(" ", "▁")
    learned.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    raw = [f"<0x{byte:02X}>" for byte in range(256)]
    learned.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[*first, *raw]))
    model = json.loads(learned.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    tokenizer = GemmaTokenizer(vocab=model["vocab"], merges=merges, additional_special_tokens=TURNS)
    begins = [("<bos>", tokenizer.bos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("<bos> $A", None, begins)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_model(folder: Path, texts: Sequence[str], *, seed: int = 0) -> Path:
    """The whole model in ``folder``: some 200,000 weights in bfloat16."""
    tokenizer = write_tokenizer(folder, texts)
    config = GemmaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=1024,
    )
    torch.manual_seed(seed)
    model = GemmaForCausalLM(config).to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")],
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    return folder
