"""vLLM as the engine on a GPU, chosen by ``ONTOPIC_BACKEND=vllm``.

vLLM is in the image of ``bentofile.vllm.yaml`` alone. Written against its engine of November 2026, and not
run on a GPU yet.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ontopic.errors import UserError
from ontopic.models.answer import Generated, Generation, Piece, TokenLogprob
from ontopic.models.loading import LanguageModel, conversational_tokenizer
from ontopic.models.token_bytes import TokenBytes
from serving.async_batch import AsyncBatch


def begin(folder: Path) -> tuple[LanguageModel, VllmBatch]:
    """A model's tokenizer and configuration, without its weights, and the batch that has those.

    Raises:
        UserError: vLLM is not installed, or the folder holds no whole model.
    """
    from transformers import AutoConfig

    tokenizer = conversational_tokenizer(folder)
    batch = VllmBatch(folder, TokenBytes(tokenizer))
    model: Any = SimpleNamespace(config=AutoConfig.from_pretrained(folder))
    return LanguageModel(model, tokenizer), batch


class VllmBatch(AsyncBatch):
    """vLLM's engine.

    Args:
        folder: the model's.
        token_bytes: the bytes that a token stands for.
        most_waiting: as ``AsyncBatch`` takes it.
    """

    def __init__(self, folder: Path, token_bytes: Callable[[int], bytes], *, most_waiting: int = 256) -> None:
        self._token_bytes = token_bytes
        try:
            import vllm
            from vllm.sampling_params import RequestOutputKind
        except ImportError as error:
            raise UserError(
                f"ONTOPIC_BACKEND is vllm, and vLLM can't be imported ({error}); use the image of bentofile.vllm.yaml"
            ) from error
        self._vllm: Any = vllm
        self._deltas = RequestOutputKind.DELTA
        super().__init__("vllm", most_waiting=most_waiting)
        self._engine: Any = asyncio.run_coroutine_threadsafe(self._started(folder), self._loop).result()

    async def _started(self, folder: Path) -> Any:
        arguments = self._vllm.AsyncEngineArgs(model=str(folder), disable_log_stats=True)
        return self._vllm.AsyncLLMEngine.from_engine_args(arguments)

    async def _closed(self) -> None:
        self._engine.shutdown()

    async def _generated(self, generation: Generation) -> Generated:
        sampling = generation.sampling
        parameters = self._vllm.SamplingParams(
            max_tokens=sampling.limit,
            temperature=sampling.temperature if sampling.top_p > 0 else 0.0,  # vLLM's top_p is above 0
            top_p=sampling.top_p or 1.0,
            seed=None if sampling.seed is None else sampling.seed % 2**63,
            stop=list(sampling.stop) or None,
            logprobs=sampling.top_logprobs,
            output_kind=self._deltas,
        )
        prompt = self._vllm.TokensPrompt(prompt_token_ids=generation.ids)
        text, held, n, reason, logprobs = "", "", 0, None, list[TokenLogprob]()
        async for output in self._engine.generate(prompt, parameters, uuid.uuid4().hex):
            self._begins(generation)
            (delta,) = output.outputs
            reason = delta.finish_reason
            tokens = list(delta.token_ids)
            if reason == "stop" and not isinstance(delta.stop_reason, str):
                tokens = tokens[:-1]  # the token that ends an answer is not part of it
            places = zip(tokens, delta.logprobs or (), strict=False)
            new = tuple(self._logprob(token, place, top=sampling.top_logprobs or 0) for token, place in places)
            n += len(tokens)
            held += delta.text
            held = held if text else held.lstrip()
            sure = held.rstrip()  # white space at the end is not part of the answer either
            held = held[len(sure) :]
            text += sure
            logprobs += new
            if generation.on_piece and (sure or new):
                generation.on_piece(Piece(sure, n, new))
        if reason not in ("stop", "length"):
            raise RuntimeError(f"vLLM ended an answer with {reason!r}")
        return Generated(text, len(generation.ids), n, reason, tuple(logprobs))

    def _logprob(self, token: int, place: dict[int, Any], *, top: int) -> TokenLogprob:
        """From vLLM's likeliest tokens at a place, by id; the sampled one is always among them."""
        likeliest = sorted(place.items(), key=lambda each: -each[1].logprob)[:top]
        return TokenLogprob(
            self._token_bytes(token),
            place[token].logprob,
            tuple((self._token_bytes(other), each.logprob) for other, each in likeliest),
        )
