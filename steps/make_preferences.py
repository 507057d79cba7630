"""Build preference pairs from judged traffic."""

from __future__ import annotations

from typing import Annotated, Any

import mlflow
import pandas as pd
from zenml import step

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice, ModelSettings, TeacherSettings, TrainingSettings
from ontopic.data import labelled as labelled_data
from ontopic.judges.cards import calibration
from ontopic.models import generation
from ontopic.models import loading as models
from ontopic.records import Judged
from ontopic.registry import versions as registry
from ontopic.state.workspace import Workspace
from ontopic.training import best_of_n, preferences, teacher
from steps.caching import JUDGES, depends_on


@step(
    experiment_tracker=True,
    cache_policy=depends_on(*JUDGES, best_of_n, generation, labelled_data, models, preferences, registry, teacher),
)
def make_preferences(
    judged: Judged,
    registered_model: str,
    champion: str,
    model: ModelSettings,
    judge: JudgeChoice,
    policy: Policy,
    teacher_settings: TeacherSettings | None,
    training: TrainingSettings,
    workspace: Workspace,
) -> Annotated[list[dict[str, Any]], "preferences"]:
    """Returns the pairs; their hash and their count by source go to MLflow."""
    records, verdicts = judged.records, judged.verdicts
    labelled = [q for q in labelled_data.load_questions(policy.questions) if q.split in ("train", "judge")]
    taught = teacher.answers(records, verdicts, policy=policy, settings=teacher_settings) if teacher_settings else None
    own: dict[str, str] = {}
    unwritten = preferences.unwritten(
        records, verdicts, labelled=labelled, taught=taught, least_certainty=training.least_certainty
    )
    if unwritten and training.best_of > 1:
        own = best_of_n.best_of_n(
            models.load(registry.find(registered_model, champion, state=workspace.root).folder, model.precision),
            calibration.open_judge(judge, policy, workspace=workspace),
            records=unwritten,
            n=training.best_of,
            max_new_tokens=model.max_new_tokens,
            batch_size=model.batch_size,
            seed=training.seed,
        )
    pairs = preferences.build_preferences(
        records,
        verdicts,
        labelled=labelled,
        refusal=policy.refusal,
        seed=training.seed,
        taught=taught,
        in_scope_share=training.in_scope_share,
        least_certainty=training.least_certainty,
        cover=training.cover,
        own=own,
    )
    rows = [pair.model_dump(mode="json") for pair in pairs]
    counts = pd.Series([pair.source for pair in pairs], dtype=str).value_counts()
    mlflow.log_params({"preferences_sha256": preferences.preferences_hash(pairs), "preferences": len(pairs)})
    mlflow.log_params({f"preferences_chosen_{source}": int(n) for source, n in counts.items()})
    mlflow.log_table(pd.DataFrame(rows), "preferences.json")
    return rows
