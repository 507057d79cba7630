"""Judge stored records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from zenml import step

from ontopic import reports
from ontopic.judges import calibration
from ontopic.policy import Policy
from ontopic.progress import progress
from ontopic.settings import JudgeSettings
from ontopic.traffic import TrafficStore
from ontopic.workspace import Workspace
from steps.caching import JUDGES, depends_on


@step(cache_policy=depends_on(*JUDGES, reports))
def judge_traffic(
    record_ids: list[str],
    judge_card: dict[str, Any],
    judge: JudgeSettings,
    policy: Policy,
    prompts_folder: str,
    state: str,
) -> Annotated[pd.DataFrame, "judged_traffic"]:
    """Returns the records with their verdicts, in the order they were asked.

    Args:
        judge_card: of the calibrated judge; a part of the cache key.
    """
    workspace = Workspace(Path(state))
    opened = calibration.open_judge(judge, policy, Path(prompts_folder), workspace)
    with TrafficStore(workspace.traffic) as store:
        records = store.records(ids=record_ids)
    with progress("verdicts", len(records), "records") as advance:
        return reports.verdict_frame(records, opened.judge(records, advance))
