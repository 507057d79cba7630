"""Judge stored records, window by window."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice
from ontopic.judges.cards.card import JudgeCard
from ontopic.records import Judged
from ontopic.state.workspace import Workspace
from steps.caching import depends_on_imports


@step(cache_policy=depends_on_imports(__file__))
def judge_traffic(
    *,
    record_ids: list[str],
    judge_card: JudgeCard,
    judge: JudgeChoice,
    policy: Policy,
    window_records: int,
    workspace: Workspace,
) -> Annotated[Judged, "judged_traffic"]:
    """Returns the records with their verdicts, in the order they were asked.

    Args:
        judge_card: of the calibrated judge; a part of the cache key.
    """
    from ontopic.judges.opening import open_judge
    from ontopic.monitoring import asked_traffic
    from ontopic.monitoring.windows import WindowStore
    from ontopic.registry.unnamed import named
    from ontopic.traffic.store import TrafficStore

    opened = open_judge(judge, policy, workspace=workspace)
    name = policy.registered_model
    with TrafficStore(workspace.traffic, name) as traffic:
        records = traffic.records(ids=record_ids)
    with named(WindowStore(workspace.windows, name), workspace) as store:
        return asked_traffic.judge_asked(store, records, judge=opened, window_records=window_records)
