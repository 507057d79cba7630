"""Answers to many conversations, where nobody waits for the first of them."""

from __future__ import annotations

from collections.abc import Sequence

from ontopic.models.answer import Generated, Generation, Sampling
from ontopic.models.chat_template import chat_prompts
from ontopic.models.engines import begin_batch
from ontopic.models.loading import LanguageModel
from ontopic.models.queued_batch import SLOTS
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
    samplings = [Sampling(max_new_tokens, temperature, seed=seed + number) for number in range(len(conversations))]
    return _generated(language_model, conversations, samplings=samplings, slots=slots, advance=advance)


def answer_requests(
    language_model: LanguageModel,
    requests: Sequence[tuple[Sequence[dict[str, str]], Sampling]],
    *,
    slots: int = SLOTS,
    advance: Advance | None = None,
) -> list[Generated]:
    """Answers to what clients sent, each sampled as its client asked, in their order.

    Args:
        slots, advance: as ``generate`` takes them.
    """
    conversations, samplings = [messages for messages, _ in requests], [sampling for _, sampling in requests]
    return _generated(language_model, conversations, samplings=samplings, slots=slots, advance=advance)


def _generated(
    language_model: LanguageModel,
    conversations: Sequence[Sequence[dict[str, str]]],
    *,
    samplings: Sequence[Sampling],
    slots: int,
    advance: Advance | None,
) -> list[Generated]:
    prompts = chat_prompts(language_model.tokenizer, conversations)
    tokens = [language_model.tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    generations = [Generation(ids, sampling) for ids, sampling in zip(tokens, samplings, strict=True)]
    for generation in generations:
        if advance:
            generation.done.add_done_callback(lambda _: advance(1))
    batch = begin_batch(language_model, most_waiting=len(generations), slots=slots)
    batch.submit(sorted(generations, key=lambda each: len(each.ids)))  # where they are padded, little is padding
    try:
        return [generation.done.result() for generation in generations]
    finally:
        for generation in generations:
            generation.done.cancel()
        batch.close()
