"""A challenger that answers unseen: what users asked, in the background, for the traffic store and nobody else."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from ontopic.models.answer import Generated, Generation, OverloadedError, Sampling
from ontopic.traffic.shadow import ShadowAnswer
from ontopic.traffic.store import TrafficStore
from serving import metrics
from serving.deployment import Deployment
from serving.errors import RequestError

logger = logging.getLogger("bentoml.ontopic")

MOST_WAITING = 32
"""Answers that may wait until no user does; one more is dropped."""


class Shadow:
    """Has a challenger answer what users got answers to, when they wait for none.

    Args:
        deployment: the challenger's, whose batch yields to that of the champion.
        traffic: which keeps the answers, apart from the records.
    """

    def __init__(self, deployment: Deployment, traffic: TrafficStore) -> None:
        self._deployment, self._traffic = deployment, traffic
        self._under_way: set[Generation] = set()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="shadow")

    def offer(self, messages: list[dict[str, str]], samplings: Sequence[Sampling], *, ids: Sequence[str]) -> None:
        """Have a request answered, or drop it where too many wait; returns at once.

        Args:
            samplings: how each choice was sampled.
            ids: of the records that users' answers are stored in, a choice each.
        """
        if len(self._under_way) + len(ids) > MOST_WAITING:
            metrics.shadowed("dropped", len(ids))
            return
        taken = [Generation([], sampling) for sampling in samplings]
        self._under_way.update(taken)
        try:
            self._worker.submit(self._take, messages, taken, ids=ids).add_done_callback(_say_bug)
        except RuntimeError:  # it is closed
            self._under_way.difference_update(taken)

    def close(self) -> None:
        """Give up what waits and is under way."""
        self._worker.shutdown(wait=False, cancel_futures=True)
        for each in tuple(self._under_way):
            each.done.cancel()

    def _take(self, messages: list[dict[str, str]], taken: Sequence[Generation], *, ids: Sequence[str]) -> None:
        try:
            prompt = self._deployment.prompts.ids(messages, max(each.sampling.limit for each in taken))
            for each, record_id in zip(taken, ids, strict=True):
                each.ids = prompt
                each.done.add_done_callback(partial(self._answered, each, record_id=record_id))
            self._deployment.batch.submit(taken)
        except (OverloadedError, RequestError, RuntimeError) as error:  # full, too long for it, being taken out
            self._under_way.difference_update(taken)
            metrics.shadowed("dropped", len(taken))
            logger.info("not answered in the shadow: %s", error)

    def _answered(self, generation: Generation, done: Future[Generated], *, record_id: str) -> None:
        """Called on the generating thread, which must go on: what is to be written is written elsewhere."""
        self._under_way.discard(generation)
        if done.cancelled():
            return
        if (error := done.exception()) is not None:
            metrics.shadowed("failed", 1)
            logger.error("the challenger failed in the shadow", exc_info=error)
            return
        try:
            self._worker.submit(self._keep, done.result(), record_id).add_done_callback(_say_bug)
        except RuntimeError:  # it is closed
            return

    def _keep(self, answer: Generated, record_id: str) -> None:
        kept = ShadowAnswer(
            record_id=record_id,
            model_version=self._deployment.version,
            answer=answer.text,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            finished=answer.finished,
        )
        try:
            stored = self._traffic.add_shadow(kept)
        except SQLAlchemyError:
            logger.exception("what the challenger answered in the shadow could not be stored")
            stored = False
        metrics.shadowed("stored" if stored else "dropped", 1)


def _say_bug(done: Future[None]) -> None:
    """Nobody waits for what is done in the background, so nobody else would hear of it."""
    if not done.cancelled() and (error := done.exception()) is not None:
        logger.error("the shadow failed", exc_info=error)
