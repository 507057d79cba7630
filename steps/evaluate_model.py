"""Let one model version answer the evaluation questions and judge the answers."""

from __future__ import annotations

from typing import Annotated, Any

import mlflow
import pandas as pd
from zenml import step

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice, ModelSettings
from ontopic.data import labelled as labelled_data
from ontopic.data.labelled import Questions
from ontopic.evaluation import answers as evaluation
from ontopic.evaluation import quality
from ontopic.judges.cards import calibration
from ontopic.judges.cards.card import JudgeCard
from ontopic.models import generation, likelihood
from ontopic.models import loading as models
from ontopic.registry import versions as registry
from ontopic.reports import metrics as reports
from ontopic.state.workspace import Workspace
from ontopic.statistics.scores import flat_metrics, score
from steps.caching import JUDGES, depends_on


@step(
    experiment_tracker=True,
    cache_policy=depends_on(
        *JUDGES, evaluation, generation, labelled_data, likelihood, models, quality, registry, reports
    ),
)
def evaluate_model(
    questions: Questions,
    role: str,
    registered_model: str,
    version: str,
    model: ModelSettings,
    judge_card: JudgeCard,
    judge: JudgeChoice,
    policy: Policy,
    workspace: Workspace,
) -> tuple[Annotated[pd.DataFrame, "evaluated"], Annotated[dict[str, Any], "quality"]]:
    """Returns the records with their verdicts, in the order of the questions, and the answers' quality.

    Args:
        role: champion or challenger; names the MLflow run that the numbers go to, nested in the pipeline's.
    """
    loaded = models.load(registry.find(registered_model, version, state=workspace.root).folder, model.precision)
    evaluated = evaluation.evaluate(
        loaded,
        version,
        judge=calibration.open_judge(judge, policy, workspace=workspace),
        questions=questions.root,
        max_new_tokens=model.max_new_tokens,
        batch_size=model.batch_size,
    )
    measured = quality.measure_quality(loaded, evaluated.questions, records=evaluated.records)
    frame = reports.verdict_frame(evaluated.records, evaluated.verdicts)
    with mlflow.start_run(run_name=f"{role}, version {version}", nested=True):
        mlflow.set_tags({"model_version": version, "role": role, "stage": "evaluation"})
        mlflow.log_params({"judge_id": judge_card.judge_id, "questions": len(questions.root)})
        mlflow.log_metrics(flat_metrics(score(evaluated.verdicts)) | measured.metrics())
        mlflow.log_table(frame[["question", "in_scope", "answer", "verdict", "score"]], "answers.json")
    return frame, measured.model_dump(mode="json")
