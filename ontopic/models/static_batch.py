"""Transformers' ``generate`` in static batches: for a GPU without vLLM, and for models that OpenVINO can't take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from ontopic.models.answer import Generation
from ontopic.models.growing_answer import GrowingAnswer
from ontopic.models.loading import LanguageModel
from ontopic.models.queued_batch import MOST_WAITING, SLOTS, QueuedBatch
from ontopic.models.sampling import sampled, token_logprob
from ontopic.models.token_bytes import TokenBytes


class StaticBatch(QueuedBatch):
    """Those that wait are answered together; who comes later waits until all of them are.

    Args:
        most_waiting, slots, yields_to: as ``QueuedBatch`` takes them.

    Attributes:
        token_bytes: the bytes that a token stands for.
    """

    alternatives = True

    def __init__(
        self,
        language_model: LanguageModel,
        *,
        most_waiting: int = MOST_WAITING,
        slots: int = SLOTS,
        yields_to: Callable[[], bool] | None = None,
    ) -> None:
        self._model: Any = language_model.model
        self._tokenizer: Any = language_model.tokenizer
        self.token_bytes, self._ends = TokenBytes(language_model.tokenizer), language_model.end_tokens
        super().__init__(most_waiting=most_waiting, slots=slots, yields_to=yields_to)

    def _begin(self, generations: Sequence[Generation]) -> list[GrowingAnswer]:
        return [GrowingAnswer(each, tokenizer=self._tokenizer, ends=self._ends) for each in generations]

    def _joins(self) -> bool:
        return not self._answers

    def _free(self, answer: GrowingAnswer) -> None:
        pass

    @torch.inference_mode()
    def _step(self) -> None:
        """Answer all that have begun, to their ends."""
        rows = [_Row(answer) for answer in self._answers]
        padded = self._tokenizer.pad(
            {"input_ids": [row.answer.generation.ids for row in rows]}, padding_side="left", return_tensors="pt"
        ).to(self._model.device)
        taking = _Taking(rows, self)
        self._model.generate(
            **padded,
            generation_config=GenerationConfig(
                max_new_tokens=max(row.answer.generation.sampling.limit for row in rows),
                do_sample=False,
                pad_token_id=self._tokenizer.pad_token_id,
            ),
            logits_processor=LogitsProcessorList([_Choosing(rows)]),
            stopping_criteria=StoppingCriteriaList([taking]),
        )

    def stepped(self, rows: Sequence[_Row], start: float) -> None:
        """Between two tokens of all: give up what nobody waits for, and let those pass whom this batch waits for."""
        for row in rows:
            if not row.ended and row.answer.generation.done.cancelled():
                row.ended = True
            if row.ended and row.answer in self._answers:
                self._end(row.answer)
        self._worked(start)
        self._give_way()


class _Row:
    """An answer in a static batch.

    Attributes:
        token: what was chosen for it last, from ``logits`` of shape (vocabulary,).
    """

    def __init__(self, answer: GrowingAnswer) -> None:
        self.answer, self.ended, self.token = answer, False, 0
        self.logits = torch.empty(0)
        self._generator: torch.Generator | None = None
        sampling = answer.generation.sampling
        if sampling.temperature > 0:
            self._generator = torch.Generator()
            seed = sampling.seed
            self._generator.manual_seed(seed % 2**63) if seed is not None else self._generator.seed()

    def choose(self, logits: torch.Tensor, likeliest: int) -> None:
        sampling = self.answer.generation.sampling
        self.logits = logits
        self.token = likeliest if self._generator is None else sampled(logits, sampling, generator=self._generator)


class _Choosing(LogitsProcessor):
    """Chooses each answer's token as its own client asked, and leaves ``generate`` no other."""

    def __init__(self, rows: Sequence[_Row]) -> None:
        self._rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores of shape (answers, vocabulary) to scores in which one token of each is possible."""
        likeliest = scores.argmax(-1).tolist()
        for i, row in enumerate(self._rows):
            if not row.ended:
                row.choose(scores[i], likeliest[i])
        chosen = torch.tensor([[row.token] for row in self._rows], device=scores.device)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)


class _Taking(StoppingCriteria):
    """Passes each answer's token on, and says which answers have ended."""

    def __init__(self, rows: Sequence[_Row], batch: StaticBatch) -> None:
        self._rows, self._batch, self._start = rows, batch, time.perf_counter()

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        for row in self._rows:
            if row.ended:
                continue
            try:
                row.ended = row.answer.take(row.token, lambda row=row: self._logprob(row))  # type: ignore[misc]
            except Exception as error:  # of this answer alone
                row.ended = True
                row.answer.fail(error)
        self._batch.stepped(self._rows, self._start)
        self._start = time.perf_counter()
        return torch.tensor([row.ended for row in self._rows], device=input_ids.device)

    def _logprob(self, row: _Row) -> Any:
        top = row.answer.generation.sampling.top_logprobs or 0
        return token_logprob(row.logits, row.token, top=top, token_bytes=self._batch.token_bytes)
