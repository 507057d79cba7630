"""Build preference pairs from judged traffic."""

from __future__ import annotations

from typing import Annotated

import mlflow
import pandas as pd
from zenml import step

from ontopic.config.model_settings import ModelSettings
from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice, TeacherSettings
from ontopic.config.training_settings import TrainingSettings
from ontopic.data import labelled as labelled_data
from ontopic.judges.opening import open_judge
from ontopic.models import loading as models
from ontopic.records import Judged
from ontopic.registry import versions as registry
from ontopic.state.workspace import Workspace
from ontopic.training import best_of_n, preferences, teacher
from ontopic.training.preferences import PairSettings, Preferences, WrittenAnswers
from steps.caching import depends_on_imports


@step(
    experiment_tracker=True,
    cache_policy=depends_on_imports(__file__),
)
def make_preferences(
    *,
    judged: Judged,
    champion: str,
    model: ModelSettings,
    judge: JudgeChoice,
    teacher_settings: TeacherSettings | None,
    training: TrainingSettings,
    policy: Policy,
    workspace: Workspace,
) -> Annotated[Preferences, "preferences"]:
    """Returns the pairs; their hash and their count by source go to MLflow."""
    known = labelled_data.load_questions(policy.questions, languages=policy.languages)
    labelled = [q for q in known if q.split in ("train", "judge")]
    taught: dict[str, str] = {}
    if teacher_settings:
        taught = teacher.answers(judged.records, judged.verdicts, policy=policy, settings=teacher_settings)
    settings = PairSettings.model_validate(training)
    unwritten = preferences.unwritten(
        judged, labelled=labelled, taught=taught, least_certainty=settings.least_certainty
    )
    own: dict[str, str] = {}
    if unwritten and training.best_of > 1:
        folder = registry.find(policy.registered_model, champion, workspace=workspace).folder
        own = best_of_n.best_answers(
            models.load(folder, model.answering_precision),
            open_judge(judge, policy, workspace=workspace),
            records=unwritten,
            n=training.best_of,
            max_new_tokens=model.max_new_tokens,
            batch_size=model.batch_size,
            seed=training.seed,
        )
    written = WrittenAnswers(taught=taught, own=own)
    pairs = preferences.build_preferences(judged, labelled=labelled, policy=policy, settings=settings, written=written)
    counts = pd.Series([pair.source for pair in pairs], dtype=str).value_counts()
    mlflow.log_params({"preferences_sha256": preferences.preferences_hash(pairs), "preferences": len(pairs)})
    mlflow.log_params({f"preferences_chosen_{source}": int(n) for source, n in counts.items()})
    mlflow.log_table(pd.DataFrame([pair.model_dump(mode="json") for pair in pairs]), "preferences.json")
    return Preferences(pairs)
