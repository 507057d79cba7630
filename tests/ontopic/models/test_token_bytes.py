"""The bytes of tokens join to the text, in each kind of vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ontopic.models.token_bytes import TokenBytes

TEXTS = ["Ünïcode, please: 🦊 漢字 \u202e\n\ttab", "plain", "🏴\u200d☠️ é", " two  spaces "]


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_of_a_byte_level_vocabulary(model_folder: Path, text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    token_bytes = TokenBytes(tokenizer)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert b"".join(map(token_bytes, ids)) == text.encode()
    assert token_bytes(tokenizer.eos_token_id) == tokenizer.eos_token.encode()
    assert token_bytes(len(tokenizer)) == token_bytes(-1) == b""


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_of_a_vocabulary_with_byte_fallback(text: str) -> None:
    """As Gemma and Llama 2 have it."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *"plaints,:▁ÜïÉ"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    inside = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    inside.normalizer = normalizers.Replace(" ", "▁")
    inside.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inside)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert b"".join(map(TokenBytes(tokenizer), ids)) == text.encode()
