"""Judge stored records."""

from __future__ import annotations

from typing import Annotated, Any

from zenml import step

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice
from ontopic.judges.cards import calibration
from ontopic.progress import progress
from ontopic.records import Judged
from ontopic.state.workspace import Workspace
from ontopic.traffic.store import TrafficStore
from steps.caching import JUDGES, depends_on


@step(cache_policy=depends_on(*JUDGES))
def judge_traffic(
    record_ids: list[str],
    judge_card: dict[str, Any],
    judge: JudgeChoice,
    policy: Policy,
    workspace: Workspace,
) -> Annotated[Judged, "judged_traffic"]:
    """Returns the records with their verdicts, in the order they were asked.

    Args:
        judge_card: of the calibrated judge; a part of the cache key.
    """
    opened = calibration.open_judge(judge, policy, workspace=workspace)
    with TrafficStore(workspace.traffic) as store:
        records = store.records(ids=record_ids)
    with progress("verdicts", len(records), unit="records") as advance:
        return Judged(records=records, verdicts=opened.judge(records, advance))
