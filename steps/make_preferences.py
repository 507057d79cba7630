"""Build preference pairs from judged traffic, people's edits and the sets that they have."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from ontopic.config.model_settings import ModelSettings
from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice
from ontopic.data.same_question import identity
from ontopic.records import Judged
from ontopic.state.workspace import Workspace
from ontopic.training.corrections import load_corrections
from ontopic.training.next_preferences import (
    NextPreferences,
    PreferenceTerms,
    next_preferences,
    taught_questions,
    to_learn_from,
)
from ontopic.training.preferences import Preferences, WrittenAnswers
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
    terms: PreferenceTerms,
    policy: Policy,
    workspace: Workspace,
) -> Annotated[Preferences, "preferences"]:
    """Returns the pairs; their count by source and what people added, corrected and edited go to MLflow."""
    import mlflow

    from ontopic.judges.opening import open_judge
    from ontopic.models import loading as models
    from ontopic.registry import versions as registry
    from ontopic.training import best_of_n, preferences, teacher, wrong_answers

    learned, training, labelled = to_learn_from(judged, policy), terms.training, taught_questions(policy)
    corrections = load_corrections(policy, workspace, keys=training.teaching_keys)
    corrected = {identity(each.record.request): each.answer for each in corrections.taught}
    taught: dict[str, str] = {}
    if terms.teacher:
        rows = zip(learned.records, learned.verdicts, strict=True)
        asked = [row for row in rows if identity(row[0].request) not in corrected]
        taught = teacher.answers([r for r, _ in asked], [v for _, v in asked], policy=policy, settings=terms.teacher)
    unwritten = preferences.unwritten(
        learned, labelled=labelled, taught=taught | corrected, least_certainty=training.least_certainty
    )
    own: dict[str, str] = {}
    if unwritten and training.best_of > 1:
        folder = registry.find(policy.registered_model, champion, workspace=workspace).folder
        own = best_of_n.best_answers(
            models.open_model(folder, model.answering_precision),
            open_judge(judge, policy, workspace=workspace),
            records=unwritten,
            n=training.best_of,
            max_new_tokens=model.max_new_tokens,
            batch_size=model.batch_size,
            seed=training.seed,
        )
    wrong = wrong_answers.known_wrong(
        learned,
        labelled=labelled,
        taught=taught | corrected,
        teacher=terms.teacher,
        judge=judge,
        policy=policy,
        workspace=workspace,
    )
    written = WrittenAnswers(taught=taught, own=own, corrections=corrections.taught, wrong=wrong)
    seen = next_preferences(learned, terms=terms, policy=policy, workspace=workspace, written=written)
    mlflow.log_param("preferences_held_apart", len(judged.records) - len(learned.records))
    held_apart = {"corrections": len(corrections.taught), "corrections_held_apart": corrections.held_apart}
    mlflow.log_params(held_apart if any(held_apart.values()) else {})
    _track(seen)
    return Preferences(seen.pairs)


def _track(seen: NextPreferences) -> None:
    import mlflow
    import pandas as pd

    counts = pd.Series([pair.source for pair in seen.pairs], dtype=str).value_counts()
    mlflow.log_params({f"preferences_chosen_{source}": int(n) for source, n in counts.items()})
    edits = {"edits_sha256": seen.edits_sha256, "dropped": seen.dropped, "changed": seen.changed}
    mlflow.log_params({f"preferences_{name}": value for name, value in edits.items()})
