"""What generates a model's answers: OpenVINO on a CPU, PyTorch on a GPU and for models that OpenVINO can't take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ontopic.models.answer import Batch
from ontopic.models.beside import load_beside
from ontopic.models.loading import LanguageModel, open_model
from ontopic.models.openvino_batch import PROMPT_TOKENS, OpenVinoBatch, OpenVinoEngine, open_engine
from ontopic.models.queued_batch import MOST_WAITING, SLOTS
from ontopic.models.static_batch import StaticBatch


def begin_batch(
    language_model: LanguageModel,
    *,
    most_waiting: int = MOST_WAITING,
    slots: int = SLOTS,
    prompt_tokens: int = PROMPT_TOKENS,
    yields_to: Callable[[], bool] | None = None,
) -> Batch:
    """A batch of this model's answers. One at a time: what it generates with is kept for the next.

    Args:
        most_waiting: requests that may wait for a place; one more is refused.
        slots: the most answers under way.
        prompt_tokens: of prompts, read at most in one step, as the running answers wait for it.
        yields_to: whether others are served now, for whom this batch waits; ``None`` for none.

    Raises:
        UserError: the model's weights can't be read.
    """
    engine = _engine(language_model, prompt_tokens=prompt_tokens, paced=yields_to is not None)
    if engine is None:
        return StaticBatch(language_model, most_waiting=most_waiting, slots=slots, yields_to=yields_to)
    return OpenVinoBatch(engine, language_model, most_waiting=most_waiting, slots=slots, yields_to=yields_to)


def open_beside(language_model: LanguageModel, folder: Path) -> LanguageModel:
    """The model in ``folder``, beside one that generates already: in PyTorch on one copy of what they have in common.

    OpenVINO's adapters are those of all requests of a pipeline, so there each has weights of its own.

    Raises:
        UserError: as ``load``.
    """
    precision, of = language_model.precision, language_model.folder
    if of is None or _engine(language_model) is not None:
        return open_model(folder, precision)
    return load_beside(language_model, of, folder=folder, precision=precision)


def _engine(
    language_model: LanguageModel, *, prompt_tokens: int = PROMPT_TOKENS, paced: bool = False
) -> OpenVinoEngine | None:
    engine: OpenVinoEngine | None = language_model.engine(
        lambda: open_engine(language_model, prompt_tokens=prompt_tokens, paced=paced)
    )
    return engine
