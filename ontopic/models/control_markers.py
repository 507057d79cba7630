"""Texts that a tokenizer reads as control tokens, such as ``<|im_end|>``, made plain in what clients send."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from transformers import PreTrainedTokenizerBase


@lru_cache(maxsize=8)  # to read a tokenizer's hundreds of tokens for each conversation would take as long as the rest
def control_markers(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """A pattern for the texts that ``tokenizer`` reads as control tokens, such as ``<|im_end|>``."""
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    texts = sorted((text for text in special | set(tokenizer.all_special_tokens) if len(text) > 1), key=len)
    return re.compile("|".join(re.escape(text) for text in reversed(texts)) or "(?!)")


def neutralised(messages: Sequence[dict[str, str]], markers: re.Pattern[str]) -> list[dict[str, str]]:
    """``messages`` with a space inside each marker, so that no text can end its turn and open another role's."""
    return [
        message | {"content": markers.sub(lambda marker: f"{marker[0][0]} {marker[0][1:]}", message["content"])}
        for message in messages
    ]
