"""Build preference pairs from judged traffic."""

from __future__ import annotations

from typing import Annotated

import mlflow
import pandas as pd
from pydantic import BaseModel, ConfigDict
from zenml import step

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice, ModelSettings, TeacherSettings
from ontopic.config.training_settings import TrainingSettings
from ontopic.data import labelled as labelled_data
from ontopic.data.same_question import identity
from ontopic.judges.opening import open_judge
from ontopic.models import loading as models
from ontopic.records import Judged
from ontopic.registry import versions as registry
from ontopic.state.workspace import Workspace
from ontopic.training import best_of_n, preferences, teacher, wrong_answers
from ontopic.training.corrections import load_corrections
from ontopic.training.preferences import PairSettings, Preferences, WrittenAnswers
from steps.caching import depends_on_imports


class PairTerms(BaseModel):
    """What pairs are made by.

    Attributes:
        corrections_sha256: of what people corrected; a part of the cache key.
    """

    model_config = ConfigDict(frozen=True)
    training: TrainingSettings
    teacher: TeacherSettings | None
    corrections_sha256: str


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
    terms: PairTerms,
    policy: Policy,
    workspace: Workspace,
) -> Annotated[Preferences, "preferences"]:
    """Returns the pairs; their hash and their count by source go to MLflow."""
    training = terms.training
    known = labelled_data.load_questions(policy.questions, languages=policy.languages)
    labelled = [q for q in known if q.split in ("train", "judge")]
    corrections = load_corrections(policy, workspace, keys=training.teaching_keys)
    corrected = {identity(each.record.request): each.answer for each in corrections.taught}
    taught: dict[str, str] = {}
    if terms.teacher:
        rows = zip(judged.records, judged.verdicts, strict=True)
        asked = [row for row in rows if identity(row[0].request) not in corrected]
        taught = teacher.answers([r for r, _ in asked], [v for _, v in asked], policy=policy, settings=terms.teacher)
    settings = PairSettings.model_validate(training)
    unwritten = preferences.unwritten(
        judged, labelled=labelled, taught=taught | corrected, least_certainty=settings.least_certainty
    )
    own: dict[str, str] = {}
    if unwritten and training.best_of > 1:
        folder = registry.find(policy.registered_model, champion, workspace=workspace).folder
        own = best_of_n.best_answers(
            models.load(folder, model.precision),
            open_judge(judge, policy, workspace=workspace),
            records=unwritten,
            n=training.best_of,
            max_new_tokens=model.max_new_tokens,
            batch_size=model.batch_size,
            seed=training.seed,
        )
    wrong = wrong_answers.known_wrong(
        judged,
        labelled=labelled,
        taught=taught | corrected,
        teacher=terms.teacher,
        judge=judge,
        policy=policy,
        workspace=workspace,
    )
    written = WrittenAnswers(taught=taught, own=own, corrections=corrections.taught, wrong=wrong)
    pairs = preferences.build_preferences(judged, labelled=labelled, policy=policy, settings=settings, written=written)
    counts = pd.Series([pair.source for pair in pairs], dtype=str).value_counts()
    mlflow.log_params({"preferences_sha256": preferences.preferences_hash(pairs), "preferences": len(pairs)})
    held_apart = {"corrections": len(corrections.taught), "corrections_held_apart": corrections.held_apart}
    mlflow.log_params(held_apart if any(held_apart.values()) else {})
    mlflow.log_params({f"preferences_chosen_{source}": int(n) for source, n in counts.items()})
    mlflow.log_table(pd.DataFrame([pair.model_dump(mode="json") for pair in pairs]), "preferences.json")
    return Preferences(pairs)
