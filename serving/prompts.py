"""Conversations as the token ids that a model continues."""

from __future__ import annotations

import copy
import threading

from jinja2 import TemplateError

from ontopic.models.control_markers import control_markers, neutralised
from ontopic.models.loading import LanguageModel, chat_prompts
from serving.errors import RequestError


class Prompts:
    """Conversations to token ids. Threads take turns, as a tokenizer is not safe to share.

    Args:
        language_model: gives a copy of its tokenizer, and the length of its context.
    """

    def __init__(self, language_model: LanguageModel) -> None:
        self._tokenizer = copy.deepcopy(language_model.tokenizer)
        self._context = getattr(language_model.model.config.get_text_config(), "max_position_embeddings", None)
        self._markers = control_markers(language_model.tokenizer)
        self._turn = threading.Lock()

    def ids(self, messages: list[dict[str, str]], limit: int) -> list[int]:
        """The tokens that the model continues with an answer of at most ``limit`` tokens.

        Raises:
            RequestError: the model's template refuses the messages, or they do not fit in its context.
        """
        with self._turn:
            try:
                prompt = self._prompt(neutralised(messages, self._markers))
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

    def _prompt(self, messages: list[dict[str, str]]) -> str:
        """The text that the model continues. What tools gave stands in the user's turns where the template has none of
        theirs."""
        given = [message["content"].strip() for message in messages if message["role"] == "tool"]
        try:
            (prompt,) = chat_prompts(self._tokenizer, [messages])
        except TemplateError:
            if not given:
                raise
        else:
            if all(text in prompt for text in given):
                return prompt
        (prompt,) = chat_prompts(self._tokenizer, [_of_user(messages)])
        return prompt


def _of_user(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """Messages with what tools gave in the user's words; some templates take no two turns of one role in a row."""
    joined: list[dict[str, str]] = []
    for message in messages:
        if message["role"] == "tool":
            message = {"role": "user", "content": f"Result of a tool:\n{message['content']}"}
        if joined and joined[-1]["role"] == message["role"] == "user":
            joined[-1] = joined[-1] | {"content": f"{joined[-1]['content']}\n\n{message['content']}"}
        else:
            joined.append(message)
    return joined
