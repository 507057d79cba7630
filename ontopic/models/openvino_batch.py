"""Generation on CPUs: OpenVINO GenAI's continuous batching, with paged attention and cached beginnings of prompts."""

from __future__ import annotations

import itertools
import json
import logging
import os
import secrets
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import joblib
import torch

from ontopic.errors import UserError
from ontopic.models.answer import Generation, Sampling, TokenLogprob
from ontopic.models.engine_messages import Add, Given, Step, Stop
from ontopic.models.growing_answer import GrowingAnswer
from ontopic.models.loading import LanguageModel, cpu_multiplies_bfloat16
from ontopic.models.openvino import converted
from ontopic.models.queued_batch import MOST_WAITING, SLOTS, QueuedBatch
from ontopic.models.sampling import LEAST_TEMPERATURE
from ontopic.models.token_bytes import TokenBytes

logger = logging.getLogger(__name__)

PROMPT_TOKENS = 512  # read at most in one step, as the running answers wait for it
_END_S = 10.0


class OpenVinoEngine:
    """OpenVINO's pipeline in a process of its own (``openvino_process``), which ends with this object.

    Args:
        folder: of OpenVINO's files.
        properties: of the compiled model.
        prompt_tokens: of prompts, read at most in one step.
        paced: whether each step waits for a ``Step``.

    Attributes:
        pid: of the process; ``connection``: to it.

    Raises:
        RuntimeError: OpenVINO can't take the model; says why.
    """

    def __init__(self, folder: Path, properties: dict[str, str], *, prompt_tokens: int, paced: bool) -> None:
        self._again = partial(OpenVinoEngine, folder, properties, prompt_tokens=prompt_tokens, paced=paced)
        settings = json.dumps({"prompt_tokens": prompt_tokens, "properties": properties, "paced": paced})
        mine, other = socket.socketpair()
        with other:
            command = [sys.executable, "-m", "ontopic.models.openvino_process", str(other.fileno()), str(folder)]
            process = subprocess.Popen([*command, settings], pass_fds=[other.fileno()], stdin=subprocess.DEVNULL)
        self.pid, self.connection = process.pid, Connection(mine.detach())
        self.close = weakref.finalize(self, _end, self.connection, process)
        try:
            said = self.connection.recv()
        except (EOFError, ConnectionError) as error:
            self.close()
            raise RuntimeError(f"its process ended with {process.returncode}") from error
        if said:
            self.close()
            raise RuntimeError(said)

    def again(self) -> OpenVinoEngine:
        """Another one like this, which has ended.

        Raises:
            RuntimeError: as a new one.
        """
        self.close()
        return self._again()


def _end(connection: Connection, process: subprocess.Popen[bytes]) -> None:
    connection.close()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def open_engine(
    language_model: LanguageModel, *, prompt_tokens: int = PROMPT_TOKENS, paced: bool = False
) -> OpenVinoEngine | None:
    """OpenVINO's engine of a model; ``None`` where it can't take it, or there is a GPU: then the log says why.

    Args:
        prompt_tokens, paced: as ``OpenVinoEngine`` takes them.

    Raises:
        UserError: the precision is one that PyTorch has not.
    """
    precision = language_model.precision
    if language_model.folder is None or precision == "nf4" or torch.cuda.is_available():
        return None
    try:
        folder = converted(language_model.folder, language_model.digest, precision=precision)
        return OpenVinoEngine(folder, _properties(precision), prompt_tokens=prompt_tokens, paced=paced)
    except (ImportError, UserError, RuntimeError, OSError) as error:
        if precision in ("int8", "int4"):
            raise UserError(
                f"model.precision is {precision}, for which OpenVINO can't take this model ({error}); leave it out"
            ) from error
        said = str(error).strip().splitlines()[-1][:300]
        logger.warning("PyTorch generates, several times slower, as OpenVINO can't take this model: %s", said)
        return None


class OpenVinoBatch(QueuedBatch):
    """OpenVINO's engine as a batch.

    Args:
        engine: used by this batch alone until it is closed.
        most_waiting, slots, yields_to: as ``QueuedBatch`` takes them; an engine that is paced where others are yielded
            to.
    """

    alternatives = False  # GenerationConfig.logprobs of OpenVINO GenAI 2026.4 is 1 at most

    def __init__(
        self,
        engine: OpenVinoEngine,
        language_model: LanguageModel,
        *,
        most_waiting: int = MOST_WAITING,
        slots: int = SLOTS,
        yields_to: Callable[[], bool] | None = None,
    ) -> None:
        self._engine, self._paced = engine, yields_to is not None
        self._tokenizer, self._ends = language_model.tokenizer, language_model.end_tokens
        self._token_bytes = TokenBytes(language_model.tokenizer)
        self._numbers: dict[GrowingAnswer, int] = {}
        super().__init__(most_waiting=most_waiting, slots=slots, yields_to=yields_to)

    def _begin(self, generations: Sequence[Generation]) -> list[GrowingAnswer]:
        begun = []
        for generation in generations:
            answer = GrowingAnswer(generation, tokenizer=self._tokenizer, ends=self._ends)
            number, settings = next(_numbers), _settings(generation.sampling, self._ends)
            try:
                self._engine.connection.send(Add(number, generation.ids, settings))
            except OSError as error:  # its process has ended
                answer.fail(error)
                self._restart()
                continue
            self._numbers[answer] = number
            begun.append(answer)
        return begun

    def _step(self) -> None:
        if self._paced:
            self._engine.connection.send(Step())
        given: dict[int, Given] = {each.number: each for each in self._engine.connection.recv()}
        for answer in list(self._answers):
            try:
                of_answer = given.get(self._numbers[answer])
                ended = of_answer is not None and self._taken(answer, of_answer)
            except Exception as error:  # of this answer alone
                answer.fail(error)
                ended = True
            if ended:
                self._end(answer)

    def _taken(self, answer: GrowingAnswer, given: Given) -> bool:
        """Pass on what a step gave an answer; returns whether it ends with that."""
        for token, logprob in zip(given.tokens, given.logprobs, strict=True):
            said = TokenLogprob(self._token_bytes(token), logprob, ())
            if answer.take(token, lambda said=said: said):  # type: ignore[misc]
                return True
        if given.failed:
            raise RuntimeError(f"OpenVINO ended an answer: {given.failed}")
        return False

    def _free(self, answer: GrowingAnswer) -> None:
        with suppress(OSError):  # its process has ended
            self._engine.connection.send(Stop(self._numbers.pop(answer)))

    def _fail(self, error: Exception) -> None:
        super()._fail(error)
        if isinstance(error, (EOFError, OSError)):
            self._restart()

    def _restart(self) -> None:
        """Take another engine in place of one whose process has ended, such as for want of memory."""
        logger.error("the process that generates has ended; the answers under way failed, and it starts again")
        try:
            self._engine = self._engine.again()
        except (RuntimeError, OSError):
            logger.exception("it could not be started; the next request tries again")


_numbers = itertools.count()  # of requests, in all engines: what comes late of an earlier batch is nobody's


def _properties(precision: str) -> dict[str, str]:
    found = {"ENABLE_CPU_PINNING": "NO"}  # two processes would bind their threads to the same cores
    threads = joblib.cpu_count()  # OpenVINO counts the machine's, and not what a container may use of them
    if threads < (os.cpu_count() or 1):
        found["INFERENCE_NUM_THREADS"] = str(max(2, threads))  # with one it dies of SIGFPE (2026.4)
    if precision == "float32":
        return found | {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}  # they are else in 8 bits
    fast = precision == "bfloat16" or cpu_multiplies_bfloat16()
    return found | {"INFERENCE_PRECISION_HINT": "bf16" if fast else "f32"}


def _settings(sampling: Sampling, ends: frozenset[int]) -> dict[str, Any]:
    """As OpenVINO's ``GenerationConfig`` takes them."""
    settings: dict[str, Any] = {
        "max_new_tokens": sampling.limit,
        "stop_token_ids": sorted(ends),
        "logprobs": 0 if sampling.top_logprobs is None else 1,
        "apply_chat_template": False,
        "do_sample": sampling.temperature > LEAST_TEMPERATURE and sampling.top_p > 0,
    }
    if settings["do_sample"]:
        seed = secrets.randbits(32) if sampling.seed is None else sampling.seed % 2**32
        settings |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "rng_seed": seed}
    return settings
