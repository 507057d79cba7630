"""Build preference pairs from judged traffic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import mlflow
import pandas as pd
from zenml import step

from ontopic import labelled_data, preferences, teacher
from ontopic.policy import Policy
from ontopic.reports import verdicts_of
from ontopic.settings import TeacherSettings, TrainingSettings
from ontopic.traffic import TrafficStore
from ontopic.workspace import Workspace
from steps.caching import depends_on


@step(experiment_tracker=True, cache_policy=depends_on(labelled_data, preferences, teacher))
def make_preferences(
    record_ids: list[str],
    judged: pd.DataFrame,
    policy: Policy,
    teacher_settings: TeacherSettings | None,
    training: TrainingSettings,
    state: str,
    tracking_uri: str,
    rehearse: bool = False,
) -> Annotated[list[dict[str, Any]], "preferences"]:
    """Returns the pairs; their hash and their count by source go to MLflow.

    Args:
        rehearse: as ``preferences.build_preferences`` has it, for a champion that was trained before.
    """
    with TrafficStore(Workspace(Path(state)).traffic) as store:
        records = store.records(ids=record_ids)
    labelled = [q for q in labelled_data.load_questions(policy.questions) if q.split in ("train", "judge")]
    verdicts = verdicts_of(judged)
    taught = teacher.answers(records, verdicts, policy, teacher_settings) if teacher_settings else None
    pairs = preferences.build_preferences(
        records,
        verdicts,
        labelled,
        policy.refusal,
        training.seed,
        taught,
        training.in_scope_share,
        rehearse,
        training.least_certainty,
        training.cover,
    )
    rows = [vars(pair) for pair in pairs]
    counts = pd.Series([pair.source for pair in pairs], dtype=str).value_counts()
    mlflow.log_params({"preferences_sha256": preferences.preferences_hash(pairs), "preferences": len(pairs)})
    mlflow.log_params({f"preferences_chosen_{source}": int(n) for source, n in counts.items()})
    mlflow.log_table(pd.DataFrame(rows), "preferences.json")
    return rows
