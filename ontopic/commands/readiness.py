"""What a configuration needs of this machine, checked before any work. All that is missing is said at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

from ontopic.config.model_settings import ModelSettings
from ontopic.config.settings import (
    DeepEvalJudgeSettings,
    EndpointSettings,
    JudgeSettings,
    PanelJudgeSettings,
    Settings,
)
from ontopic.config.training_settings import TrainingSettings
from ontopic.errors import UserError

_OF_BITSANDBYTES = re.compile(r"paged_|.*_bnb|adamw_8bit|ademamix|lion_")  # its optimizers' names in Transformers


def check_ready(settings: Settings) -> None:
    """Fail before any work where a GPU, a package, a key or the access to a model is missing that the configuration
    needs, its model knows no conversations, or the promotion record could not be signed.

    Raises:
        UserError: with a sentence for each of these that is so.
    """
    missing: list[str] = []
    for check in _checks(settings):
        try:
            check()
        except UserError as error:
            missing += error.mistakes
    if missing:
        raise UserError(*dict.fromkeys(missing))


def _checks(settings: Settings) -> Iterator[Callable[[], object]]:
    from ontopic.registry.record_signing import signing_key

    yield signing_key
    if settings.serving.backend == "weights":
        if settings.cluster is None:  # else it is the cluster that has the GPUs, and what needs them
            yield partial(_check_gpu, settings.model)
            yield partial(_check_processes, settings.training)
            yield partial(_check_packages, settings)
        yield partial(_check_optimizer, settings.training)
        yield partial(_check_model, settings.model)
    judges = [settings.judge, *(beside.judge for beside in settings.judges_beside)]
    members = [member for judge in judges for member in _members(judge)]
    for asked in (settings.teacher, *members):
        if isinstance(asked, EndpointSettings):
            yield partial(_check_endpoint, asked)
        if isinstance(asked, DeepEvalJudgeSettings):
            yield _check_deepeval


def _check_gpu(model: ModelSettings) -> None:
    if model.precision != "nf4":
        return
    import torch

    if not torch.cuda.is_available():
        built = "" if torch.version.cuda else f", as torch {torch.__version__} is built without CUDA"
        raise UserError(
            f"model.precision is nf4, which needs a CUDA GPU, and this machine shows none{built}; "
            "use configs/local.yaml, or set precision: auto"
        )


def _check_processes(training: TrainingSettings) -> None:
    if training.processes > 1:
        from ontopic.training.processes import check_processes

        check_processes(training)


def _check_optimizer(training: TrainingSettings) -> None:
    if training.optimizer == TrainingSettings.model_fields["optimizer"].default:
        return  # there is such a one, and to look it up takes seconds
    from transformers.training_args import OptimizerNames

    if training.optimizer not in (name.value for name in OptimizerNames):
        raise UserError(
            f"training.optimizer: Transformers has none called {training.optimizer!r}; take one such as "
            "adamw_torch_fused or paged_adamw_8bit"
        )


def _check_packages(settings: Settings) -> None:
    if settings.model.precision == "nf4" or _OF_BITSANDBYTES.match(settings.training.optimizer):
        from ontopic.models.loading import check_bitsandbytes

        check_bitsandbytes()


def _check_model(model: ModelSettings) -> None:
    if model.name != "embedded":
        from ontopic.models.loading import check_conversational

        check_conversational(model)


def _check_endpoint(asked: EndpointSettings) -> None:
    from ontopic.endpoint.endpoint import Endpoint

    Endpoint(asked).check()


def _check_deepeval() -> None:
    from ontopic.judges.llm.deepeval import import_deepeval

    import_deepeval()


def _members(judge: JudgeSettings) -> list[JudgeSettings]:
    return list(judge.judges) if isinstance(judge, PanelJudgeSettings) else [judge]
