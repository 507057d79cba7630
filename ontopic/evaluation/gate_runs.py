"""One model's answers in a gate as an evaluation run of MLflow: a trace an answer, with the verdict and the scope.

The runs of champion and challenger are over one data set, so that MLflow's own comparison shows them question by
question.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ontopic.evaluation.answers import Evaluation
from ontopic.evaluation.gate import Decision
from ontopic.progress import progress
from ontopic.registry.gate_in_markdown import as_dict
from ontopic.registry.logged_traces import assessed, log_traces
from ontopic.registry.markdown import plain
from ontopic.registry.promotion_record import Entry
from ontopic.statistics.scores import flat_metrics

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, Trace

SCOPE, IN, OUT = "scope", "in scope", "out of scope"
"""What a trace's expectation is called, and its values: MLflow's page shows a false value as none."""
_IN_SCOPE = "in_scope"  # in the data set, as a scorer made of a judge reads it
_NAME = "gate"  # of the traces
_MOST_NOTE = 5000  # characters


def log_answers(evaluation: Evaluation, *, registered_model: str, run_id: str, experiment: str, uri: str) -> None:
    """Log a model's judged answers to its run, over a data set of their questions.

    A server that does not take them, such as one of an older release, is said: no gate fails for what is only shown.

    Args:
        experiment: the run's, by its id.
        uri: MLflow's tracking URI.
    """
    from mlflow.exceptions import MlflowException

    try:
        _log(evaluation, registered_model=registered_model, run_id=run_id, experiment=experiment, uri=uri)
    except (MlflowException, NotImplementedError, OSError) as error:
        why = str(error).partition("\n")[0][:200]
        print(f"MLflow does not take the gate's answers as traces; the gate goes on ({why})", file=sys.stderr)


def _log(evaluation: Evaluation, *, registered_model: str, run_id: str, experiment: str, uri: str) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_RUN_TYPE, MLFLOW_RUN_TYPE_GENAI_EVALUATE

    client = MlflowClient(tracking_uri=uri)
    asked = _question_set(client, evaluation, registered_model=registered_model, experiment=experiment)
    context = [InputTag(MLFLOW_DATASET_CONTEXT, "gate")]
    client.log_inputs(run_id, datasets=[DatasetInput(dataset=asked, tags=context)])
    client.set_tag(run_id, MLFLOW_RUN_TYPE, MLFLOW_RUN_TYPE_GENAI_EVALUATE)
    traces = _traces(evaluation, registered_model=registered_model, run_id=run_id, experiment=experiment)
    with progress(f"answers of version {evaluation.model_version} to MLflow", len(traces), unit="traces") as advance:
        log_traces(traces, experiment, uri=uri, advance=advance)


def log_gate(decision: Decision, gate: Entry, *, outcome: str) -> None:
    """What a gate found and what followed from it, as a run within the active one, which is described by it too.

    Args:
        gate: its entry in the promotion record.
        outcome: such as ``promoted``.
    """
    import mlflow
    from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

    from ontopic.registry.gate_in_markdown import gate_in_markdown

    name = f"gate: v{gate.version} against v{gate.facts.get('against')}, {outcome}"
    said = "\n\n".join(gate_in_markdown(gate, as_dict(gate.facts.get("decision"))))[:_MOST_NOTE]
    mlflow.set_tag(MLFLOW_RUN_NOTE, f"**{plain(name)}**\n\n{said}")
    with mlflow.start_run(run_name=name, nested=True):
        mlflow.set_tags({MLFLOW_RUN_NOTE: said, "stage": "gate", "outcome": outcome, "model_version": gate.version})
        mlflow.log_metrics(flat_metrics(decision.challenger))
        mlflow.log_metrics({f"champion_{key}": value for key, value in flat_metrics(decision.champion).items()})
        found = decision.improvement
        mlflow.log_metrics({"improvement": found.value, "improvement_low": found.low, "improvement_high": found.high})
        mlflow.log_artifact(str(decision.report))
        mlflow.log_dict(decision.model_dump(mode="json", exclude={"report"}), "decision.json")


def _traces(evaluation: Evaluation, *, registered_model: str, run_id: str, experiment: str) -> list[Trace]:
    from mlflow.entities import AssessmentSource, AssessmentSourceType, Expectation
    from mlflow.tracing.constant import AssessmentMetadataKey, TraceMetadataKey

    from ontopic.judges.bridges.mlflow import feedback
    from ontopic.traffic.traces import as_trace

    began, of_policy = datetime.now(UTC), AssessmentSource(AssessmentSourceType.HUMAN, "the policy's labels")
    traces = []
    rows = zip(evaluation.questions, evaluation.records, evaluation.verdicts, strict=True)
    for i, (question, record, verdict) in enumerate(rows):
        at = began - timedelta(milliseconds=len(evaluation.records) - i)
        known = {"id": f"{run_id} {i}", "asked_at": at, "registered_model": registered_model}
        trace = as_trace(
            record.model_copy(update=known),
            experiment=experiment,
            name=_NAME,
            tags={"kind": question.kind, "intent": question.intent, "outcome": verdict.outcome},
            metadata={TraceMetadataKey.SOURCE_RUN: run_id},
        )
        said = feedback(verdict)
        said.metadata = {**(said.metadata or {}), AssessmentMetadataKey.SOURCE_RUN_ID: run_id}
        said.run_id = run_id
        scope = Expectation(SCOPE, IN if question.in_scope else OUT, source=of_policy)
        traces.append(assessed(trace, [said, scope]))
    return traces


def _question_set(client: MlflowClient, evaluation: Evaluation, *, registered_model: str, experiment: str) -> Dataset:
    """The data set of these questions: the one that is there, where another model was asked the same."""
    from mlflow.entities import Dataset
    from mlflow.genai.datasets import get_dataset

    rows = [
        {
            "inputs": {"messages": record.request},
            "expectations": {_IN_SCOPE: question.in_scope},
            "tags": {key: value for key, value in (("kind", question.kind), ("intent", question.intent)) if value},
        }
        for question, record in zip(evaluation.questions, evaluation.records, strict=True)
    ]
    name = f"{registered_model}, gate questions {_digest(rows)}"
    same = client.search_datasets(experiment_ids=[experiment], filter_string=f"name = '{name}'", max_results=1)
    found = same[0] if same else client.create_dataset(name=name, experiment_id=[experiment])
    if not found.records:
        found.merge_records(rows)
    filled = get_dataset(dataset_id=found.dataset_id)  # whose digest is of what it holds now
    return Dataset(
        name=filled.name,
        digest=filled.digest,
        source_type=filled.source_type,
        source=filled.source.to_json(),
        schema=filled.schema,
        profile=filled.profile,
    )


def _digest(rows: Sequence[Mapping[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:8]
