"""Two versions in one service: the champion, and a challenger that is being rolled out beside it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from ontopic.config.watch_settings import SHADOW
from ontopic.errors import UserError
from ontopic.registry.rollouts import Rollout
from ontopic.registry.versions import RegisteredModel
from ontopic.traffic.store import TrafficStore
from serving import metrics
from serving.deployment import Deployment
from serving.shadow import MOST_WAITING, Shadow

logger = logging.getLogger("bentoml.ontopic")

# A step of its lasts no longer than a user should wait for it.
_SHADOW_SLOTS, _SHADOW_PROMPT_TOKENS = 4, 64


@dataclass(frozen=True)
class Rolling:
    """A challenger that answers besides the champion.

    Attributes:
        shadow: what has it answer unseen; ``None`` where users get its answers.
    """

    rollout: Rollout
    deployment: Deployment
    shadow: Shadow | None

    def drain(self) -> None:
        """Answer what users asked, give up what they did not, and end."""
        if self.shadow is not None:
            self.shadow.close()
        self.deployment.batch.close()
        metrics.rolled_out(self.rollout.version, None)


def begin_rolling(
    rollout: Rollout, challenger: RegisteredModel, *, champion: Deployment, traffic: TrafficStore
) -> Rolling:
    """Load a challenger beside the champion.

    Raises:
        UserError: it can't be loaded, or the champion's weights are not in this process (``ONTOPIC_BACKEND``).
    """
    from ontopic.models.engines import begin_batch, open_beside
    from serving.prompts import Prompts

    if champion.weights is None:
        raise UserError(
            f"version {rollout.version} can't be rolled out here, as this service's backend holds one model; "
            f"version {rollout.champion} answers all"
        )
    model = open_beside(champion.weights, challenger.folder)
    unseen = rollout.share == SHADOW
    if unseen:
        batch = begin_batch(
            model,
            most_waiting=MOST_WAITING,
            slots=_SHADOW_SLOTS,
            prompt_tokens=_SHADOW_PROMPT_TOKENS,
            yields_to=lambda: champion.batch.running + champion.batch.waiting > 0,
        )
    else:
        batch = begin_batch(model)
    deployment = Deployment(rollout.version, Prompts(model), batch, guard=champion.guard, weights=model)
    metrics.rolled_out(rollout.version, rollout.share)
    logger.info("%s", rollout.in_words)
    return Rolling(rollout, deployment, Shadow(deployment, traffic) if unseen else None)


def next_stage(rolling: Rolling, rollout: Rollout) -> Rolling | None:
    """The same challenger in a later stage, where it need not be loaded anew."""
    same = (rolling.rollout.version, rolling.rollout.key) == (rollout.version, rollout.key)
    if not same or SHADOW in (rolling.rollout.share, rollout.share):
        return None
    metrics.rolled_out(rollout.version, rollout.share)
    logger.info("%s", rollout.in_words)
    return replace(rolling, rollout=rollout)
