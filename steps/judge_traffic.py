"""Judge stored records."""

from __future__ import annotations

from typing import Annotated, Any

import pandas as pd
from zenml import step

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice
from ontopic.judges import opening
from ontopic.progress import progress
from ontopic.reports import metrics as reports
from ontopic.state.workspace import Workspace
from ontopic.traffic.store import TrafficStore
from steps.caching import depends_on_imports


@step(cache_policy=depends_on_imports(__file__))
def judge_traffic(
    record_ids: list[str],
    judge_card: dict[str, Any],
    judge: JudgeChoice,
    policy: Policy,
    workspace: Workspace,
) -> Annotated[pd.DataFrame, "judged_traffic"]:
    """Returns the records with their verdicts, in the order they were asked.

    Args:
        judge_card: of the calibrated judge; a part of the cache key.
    """
    opened = opening.open_judge(judge, policy, workspace=workspace)
    with TrafficStore(workspace.traffic) as store:
        records = store.records(ids=record_ids)
    with progress("verdicts", len(records), unit="records") as advance:
        return reports.verdict_frame(records, opened.judge(records, advance))
