"""Answers to many conversations, where nobody waits for the first of them."""

from __future__ import annotations

from collections.abc import Sequence

from ontopic.models.answer import Generated, Generation, Sampling
from ontopic.models.continuous_batch import SLOTS, ContinuousBatch
from ontopic.models.loading import LanguageModel, chat_prompts
from ontopic.progress import Advance


def generate(
    language_model: LanguageModel,
    conversations: Sequence[Sequence[dict[str, str]]],
    *,
    max_new_tokens: int,
    slots: int = SLOTS,
    advance: Advance | None = None,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Generated]:
    """Answers, in the order of ``conversations``; greedy at temperature 0.

    Args:
        slots: how many are generated together.
        advance: called with 1 for each answer.
        seed: of the first answer's samples; each has one of its own.
    """
    prompts = chat_prompts(language_model.tokenizer, conversations)
    tokens = [language_model.tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    generations = [
        Generation(ids, Sampling(max_new_tokens, temperature, seed=seed + number)) for number, ids in enumerate(tokens)
    ]
    for generation in generations:
        if advance:
            generation.done.add_done_callback(lambda _: advance(1))
    batch = ContinuousBatch(language_model, len(generations), slots=slots)
    batch.submit(sorted(generations, key=lambda each: len(each.ids)))  # prompts of a length are read without padding
    try:
        return [generation.done.result() for generation in generations]
    finally:
        for generation in generations:
            generation.done.cancel()
        batch.close()
