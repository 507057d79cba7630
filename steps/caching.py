"""What a cached step depends on besides its own code and inputs."""

from __future__ import annotations

from types import ModuleType

from zenml.config import CachePolicy
from zenml.utils import source_utils

from ontopic.endpoint import endpoint, replies, stream
from ontopic.judges import judge, opening, panel
from ontopic.judges.cards import calibration
from ontopic.judges.llm import grading, templates
from ontopic.judges.llm import judge as llm
from ontopic.judges.local import judge as local
from ontopic.judges.local import language, training, visible_text
from ontopic.models import sentence_encoder

# What verdicts depend on besides the judge's settings and data.
JUDGES = (
    calibration,
    endpoint,
    grading,
    judge,
    language,
    llm,
    local,
    opening,
    panel,
    replies,
    sentence_encoder,
    stream,
    templates,
    training,
    visible_text,
)


def depends_on(*modules: ModuleType) -> CachePolicy:
    """A cache policy under which a step runs anew once the source of one of these modules has changed."""
    return CachePolicy(source_dependencies=[source_utils.resolve(module) for module in modules])
