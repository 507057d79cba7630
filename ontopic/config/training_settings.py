"""The section ``training`` of the configuration file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from ontopic.config.section import Section


class PreferenceSetSettings(Section):
    """A preference set that people have."""

    source: str = Field(min_length=1)
    """A JSONL or Parquet file, relative to the configuration file, or a Hugging Face data set (``owner/name#split``),
    with ``prompt``, ``chosen`` and ``rejected`` as TRL takes them."""
    share: float = Field(gt=0, lt=1)
    """The share of all pairs that are drawn from it; fewer where it has no more."""
    skip_bad: bool = False
    """Whether rows that are malformed, or that the evaluation or calibration split holds too, are left out; without it
    such a row stops the training before it begins."""


class TrainingSettings(Section):
    """ORPO with LoRA."""

    start: Literal["base", "champion"] = "champion"
    """What a training begins with: the base model, on the newest pairs and a share of the earlier ones that halves by
    the round (``base``), or the champion, on the newest pairs alone (``champion``)."""
    in_scope_share: float = Field(0.5, gt=0, lt=1)
    """The share of in-scope pairs; the larger side is cut down to it."""
    cover: int = Field(0, ge=0)
    """How many pairs are added from labelled questions that were not asked, spread over all intents; with any, no pair
    of the traffic is dropped."""
    least_certainty: float = Field(0.1, ge=0, le=1)
    """A record without a label gives a pair only where the judge's probability that its question is in scope is at
    least half of this away from 0.5."""
    preference_sets: list[PreferenceSetSettings] = Field(default=[])
    """Preference sets that are mixed with the traffic's pairs, one an item; their shares leave room for the latter."""
    best_of: int = Field(4, ge=1)
    """How many answers the model samples to an in-scope question without a written answer; the judge chooses the best,
    and 1 takes the answer in the traffic."""
    teaching_keys: list[str] = Field(default=[])
    """The names of the API keys whose corrections (``POST /v1/feedback``) are taught as they come; those of other keys
    are once a labeller has taken them over (``python run.py label --by feedback``)."""
    beta: float = Field(ge=0)
    """The weight of the odds-ratio loss (lambda in the ORPO paper, arXiv 2403.07691); 0 is fine-tuning on the chosen
    answers alone."""
    learning_rate: float = Field(gt=0)
    """The highest learning rate."""
    epochs: float = Field(gt=0)
    """How often all pairs are seen."""
    batch_size: int = Field(ge=1)
    """Preference pairs a step and process."""
    gradient_accumulation: int = Field(1, ge=1)
    """How many batches make one optimizer step."""
    max_rejected_tokens: int = Field(ge=1)
    """Rejected answers are cut this many tokens after they depart from the chosen one."""
    lora_rank: int = Field(16, ge=1)
    """The rank of the LoRA matrices."""
    lora_alpha: int = Field(32, ge=1)
    """LoRA's alpha: the adapter is scaled by alpha over rank."""
    lora_modules: list[str] | Literal["all-linear"] = "all-linear"
    """The names of the linear layers that get an adapter, or ``all-linear``."""
    lora_first_block: int = Field(0, ge=0)
    """The first of the model's blocks that gets an adapter; those before it need no backward pass."""
    gradient_share: float = Field(1.0, gt=0, le=1)
    """The share of a batch's gradient, by its norms at the model's last states, for which pairs are taken from the
    largest on; the others, which teach little, get no backward pass (1: none)."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """The dropout before the LoRA matrices."""
    max_steps: int = -1
    """Training stops after this many steps; -1 for all epochs."""
    save_steps: int = Field(ge=1)
    """Steps between two checkpoints."""
    optimizer: str = "adamw_torch_fused"
    """The optimizer, by its name in Transformers."""
    gradient_checkpointing: bool = False
    """Whether activations are computed again in the backward pass, to save memory."""
    early_stopping: int = Field(0, ge=0)
    """After how many checkpoints without a better margin on held-out pairs training stops, and the best is kept; 0
    holds out no pairs, trains to the end and averages the later steps' weights."""
    processes: int = Field(1, ge=1)
    """How many processes train together on a machine, a GPU each."""
    nodes: int = Field(1, ge=1)
    """How many machines train together, with ``processes`` each, on a state folder that all of them see."""
    rendezvous: str | None = Field(None, pattern=r"^[^\s:/]+:[0-9]{1,5}$", validate_default=True)
    """Where several machines meet, as ``host:port`` of the one that starts the training; needed with ``nodes``."""
    threads: int = Field(0, ge=0)
    """How many threads a training takes, in a process of its own that gives way to a service beside it; 0 for one a
    core, and no such process."""
    fully_sharded: bool = False
    """Whether the processes share the weights out among them (FSDP) in place of a copy each (DDP)."""
    attempts: int = Field(2, ge=1)
    """How often the loop trains at most, each time with the next seed, until a challenger passes the gate."""
    seed: int = 0
    """The seed of the first attempt."""

    @field_validator("preference_sets")
    @classmethod
    def _leave_room(cls, sets: list[PreferenceSetSettings]) -> list[PreferenceSetSettings]:
        if (total := sum(each.share for each in sets)) >= 1:
            raise ValueError(f"the shares add up to {total:.3g}, and must leave some of 1 to the traffic's pairs")
        return sets

    @field_validator("rendezvous")
    @classmethod
    def _is_given_to_nodes(cls, given: str | None, info: ValidationInfo) -> str | None:
        if given is None and info.data.get("nodes", 1) > 1:
            raise ValueError("several training.nodes have to meet somewhere; give host:port of the first one")
        return given

    @property
    def apart(self) -> bool:
        """Whether training is in processes of its own."""
        return self.processes > 1 or self.nodes > 1 or self.threads > 0

    def beside(self, path: Path) -> TrainingSettings:
        """These settings with the whole paths of the files that they name.

        Args:
            path: of the configuration file, to which the files are relative.
        """
        sets = [
            each.model_copy(update={"source": os.path.realpath(path.parent / each.source)})
            if os.path.isfile(path.parent / each.source)  # noqa: PTH113 (Path's fails on a name that is too long)
            else each
            for each in self.preference_sets
        ]
        return self.model_copy(update={"preference_sets": sets})
