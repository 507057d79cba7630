"""Let one model version answer the evaluation questions and judge the answers."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from ontopic.config.model_settings import ModelSettings
from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice
from ontopic.data.by_language import by_language, language_metrics
from ontopic.data.labelled import Questions
from ontopic.evaluation.gate import Evaluated
from ontopic.judges.cards.card import JudgeCard
from ontopic.state.workspace import Workspace
from ontopic.statistics.scores import flat_metrics, score
from steps.caching import depends_on_imports


@step(
    experiment_tracker=True,
    cache_policy=depends_on_imports(__file__),
)
def evaluate_model(
    *,
    questions: Questions,
    role: str,
    version: str,
    model: ModelSettings,
    judge_card: JudgeCard,
    judge: JudgeChoice,
    policy: Policy,
    workspace: Workspace,
) -> Annotated[Evaluated, "evaluated"]:
    """Returns the judged answers, in the order of the questions, and their quality.

    Args:
        role: champion or challenger; names the MLflow run that the numbers go to, nested in the pipeline's.
        judge_card: of the calibrated judge; a part of the cache key.
    """
    import mlflow

    from ontopic.evaluation import answers, quality
    from ontopic.evaluation.gate_runs import log_answers
    from ontopic.judges.guard.card import enforced_guard
    from ontopic.judges.opening import open_judge
    from ontopic.models import loading as models
    from ontopic.registry import versions as registry
    from ontopic.reports.frames import verdict_frame

    folder = registry.find(policy.registered_model, version, workspace=workspace).folder
    loaded = models.open_model(folder, model.answering_precision)
    evaluated = answers.evaluate(
        loaded,
        version,
        judge=open_judge(judge, policy, workspace=workspace),
        questions=questions.root,
        max_new_tokens=model.max_new_tokens,
        batch_size=model.batch_size,
        guard=enforced_guard(judge, policy, workspace=workspace),
    )
    measured = quality.measure_quality(loaded, evaluated.questions, records=evaluated.records)
    shown = verdict_frame(evaluated.records, evaluated.verdicts)
    with mlflow.start_run(run_name=f"gate answers of v{version}, {role}", nested=True) as run:
        mlflow.set_tags({"model_version": version, "role": role, "stage": "evaluation"})
        mlflow.log_params({"judge_id": judge_card.judge_id, "questions": len(questions.root)})
        languages = by_language([record.question for record in evaluated.records], evaluated.verdicts)
        scores = flat_metrics(score(evaluated.verdicts)) | language_metrics(languages)
        mlflow.log_metrics(scores | measured.metrics())
        if evaluated.alone is not None:
            alone = flat_metrics(score(evaluated.alone.verdicts))
            mlflow.log_metrics({f"alone_{name}": value for name, value in alone.items()})
        mlflow.log_table(shown[["question", "asked", "in_scope", "answer", "verdict", "score"]], "answers.json")
        log_answers(
            evaluated,
            registered_model=policy.registered_model,
            run_id=run.info.run_id,
            experiment=run.info.experiment_id,
            uri=workspace.mlflow_uri,
        )
    return Evaluated(evaluation=evaluated, quality=measured)
