"""Generation on CPUs: OpenVINO GenAI's continuous batching, with paged attention and cached beginnings of prompts."""

from __future__ import annotations

import itertools
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ontopic.errors import UserError
from ontopic.models.answer import Generation, Sampling, TokenLogprob
from ontopic.models.growing_answer import GrowingAnswer
from ontopic.models.loading import LanguageModel, cpu_multiplies_bfloat16
from ontopic.models.openvino import converted
from ontopic.models.queued_batch import MOST_WAITING, SLOTS, QueuedBatch
from ontopic.models.token_bytes import TokenBytes

logger = logging.getLogger(__name__)

PROMPT_TOKENS = 512  # read at most in one step, as the running answers wait for it


def open_pipeline(language_model: LanguageModel, *, prompt_tokens: int = PROMPT_TOKENS) -> Any:
    """OpenVINO's pipeline of a model; ``None`` where it can't take it, or there is a GPU: then the log says why.

    Args:
        prompt_tokens: of prompts, read at most in one step.

    Raises:
        UserError: the model's weights can't be read.
    """
    if language_model.folder is None or language_model.precision == "nf4" or torch.cuda.is_available():
        return None
    try:
        import openvino_genai

        folder = converted(language_model.folder, language_model.digest, precision=language_model.precision)
        return openvino_genai.ContinuousBatchingPipeline(
            str(folder), _scheduling(prompt_tokens), "CPU", _properties(language_model.precision)
        )
    except (ImportError, UserError, RuntimeError) as error:
        if language_model.precision in ("int8", "int4"):
            raise UserError(
                f"model.precision is {language_model.precision}, for which OpenVINO can't take this model ({error}); "
                "leave it out"
            ) from error
        said = str(error).strip().splitlines()[-1][:300]
        logger.warning("PyTorch generates, several times slower, as OpenVINO can't take this model: %s", said)
        return None


class OpenVinoBatch(QueuedBatch):
    """OpenVINO's pipeline as a batch.

    Args:
        pipeline: as ``open_pipeline`` gives it, used by this batch alone until it is closed.
        most_waiting, slots, yields_to: as ``QueuedBatch`` takes them.
    """

    alternatives = False  # https://github.com/openvinotoolkit/openvino.genai: GenerationConfig.logprobs is 1 at most

    def __init__(
        self,
        pipeline: Any,
        language_model: LanguageModel,
        *,
        most_waiting: int = MOST_WAITING,
        slots: int = SLOTS,
        yields_to: Callable[[], bool] | None = None,
    ) -> None:
        self._pipeline, self._tokenizer, self._ends = pipeline, language_model.tokenizer, language_model.end_tokens
        self._token_bytes = TokenBytes(language_model.tokenizer)
        self._handles: dict[GrowingAnswer, Any] = {}
        self._numbers = itertools.count()
        super().__init__(most_waiting=most_waiting, slots=slots, yields_to=yields_to)

    def _begin(self, generations: Sequence[Generation]) -> list[GrowingAnswer]:
        import openvino

        begun = []
        for generation in generations:
            answer = GrowingAnswer(generation, tokenizer=self._tokenizer, ends=self._ends)
            ids = openvino.Tensor(np.array([generation.ids], dtype=np.int64))
            try:
                number = next(self._numbers)
                handle = self._pipeline.add_request(number, ids, _config(generation.sampling, self._ends))
            except Exception as error:  # of this answer alone
                answer.fail(error)
                continue
            self._handles[answer] = handle
            begun.append(answer)
        return begun

    def _step(self) -> None:
        self._pipeline.step()
        for answer in list(self._answers):
            try:
                ended = self._taken(answer)
            except Exception as error:  # of this answer alone
                answer.fail(error)
                ended = True
            if ended:
                self._end(answer)

    def _taken(self, answer: GrowingAnswer) -> bool:
        """Pass on what the last step gave an answer; returns whether it ends with that."""
        from openvino_genai import GenerationStatus

        handle = self._handles[answer]
        while handle.can_read():
            (output,) = handle.read().values()
            for token, logprob in zip(output.generated_ids, output.generated_log_probs, strict=True):
                said = TokenLogprob(self._token_bytes(token), logprob, ())
                if answer.take(token, lambda said=said: said):  # type: ignore[misc]
                    return True
        if handle.get_status() != GenerationStatus.RUNNING:
            raise RuntimeError(f"OpenVINO ended an answer as {handle.get_status().name}: it found no memory for it")
        return False

    def _free(self, answer: GrowingAnswer) -> None:
        self._handles.pop(answer).stop()
        if not self._handles and self._pipeline.has_non_finished_requests():
            self._pipeline.step()  # at which it forgets what was stopped


def _scheduling(prompt_tokens: int) -> Any:
    import openvino_genai

    scheduling = openvino_genai.SchedulerConfig()
    scheduling.max_num_batched_tokens = prompt_tokens
    scheduling.max_num_seqs = 256
    scheduling.dynamic_split_fuse = True
    scheduling.enable_prefix_caching = True
    scheduling.cache_size = 0  # grows as it is needed
    return scheduling


def _properties(precision: str) -> dict[str, Any]:
    if precision == "float32":
        return {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}  # keys and values are else in 8 bits
    return {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" or cpu_multiplies_bfloat16() else "f32"}


def _config(sampling: Sampling, ends: frozenset[int]) -> Any:
    import openvino_genai

    config = openvino_genai.GenerationConfig(
        max_new_tokens=sampling.limit,
        stop_token_ids=set(ends),
        logprobs=0 if sampling.top_logprobs is None else 1,
        apply_chat_template=False,
    )
    config.do_sample = sampling.temperature > 0 and sampling.top_p > 0
    if config.do_sample:
        config.temperature, config.top_p = sampling.temperature, sampling.top_p
        config.rng_seed = (secrets.randbits(32) if sampling.seed is None else sampling.seed) % 2**32
    return config
