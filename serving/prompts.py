"""Conversations as the token ids that a model continues."""

from __future__ import annotations

import copy
import threading

from jinja2 import TemplateError

from ontopic.models.chat_template import chat_prompts
from ontopic.models.loading import LanguageModel
from serving.errors import RequestError


class Prompts:
    """Conversations to token ids. Threads take turns, as a tokenizer is not safe to share.

    Args:
        language_model: gives a copy of its tokenizer, and the length of its context.
    """

    def __init__(self, language_model: LanguageModel) -> None:
        self._tokenizer = copy.deepcopy(language_model.tokenizer)
        self._context = getattr(language_model.config.get_text_config(), "max_position_embeddings", None)
        self._turn = threading.Lock()

    def ids(self, messages: list[dict[str, str]], limit: int) -> list[int]:
        """The tokens that the model continues with an answer of at most ``limit`` tokens.

        Raises:
            RequestError: the model's template refuses the messages, or they do not fit in its context.
        """
        with self._turn:
            try:
                (prompt,) = chat_prompts(self._tokenizer, [messages])
            except TemplateError as error:
                raise RequestError(f"the model's chat template refuses these messages: {error}", "messages") from error
            ids: list[int] = self._tokenizer(prompt, add_special_tokens=False)["input_ids"]
        if self._context is not None and len(ids) + limit > self._context:
            raise RequestError(
                f"the model's context holds {self._context} tokens, and these messages take {len(ids)} "
                f"besides {limit} for the answer",
                "messages",
                code="context_length_exceeded",
            )
        return ids
