"""Serve a model and ask it questions over HTTP."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from ontopic.config.model_settings import ModelSettings
from ontopic.config.settings import TrafficSettings
from ontopic.data.labelled import Questions
from ontopic.errors import UserError
from ontopic.progress import progress
from ontopic.state.workspace import Workspace
from steps.caching import depends_on_imports


@step(experiment_tracker=True, cache_policy=depends_on_imports(__file__))
def collect_traffic(
    *,
    questions: Questions,
    registered_model: str,
    version: str,
    digest: str,
    model: ModelSettings,
    traffic: TrafficSettings,
    workspace: Workspace,
) -> Annotated[list[str], "record_ids"]:
    """Returns the ids of the records, in the order they were asked.

    Args:
        digest: of the version's weights; a part of the cache key.
    """
    from ontopic.registry.versions import find
    from ontopic.traffic import asking
    from ontopic.traffic.store import TrafficStore
    from serving.process import ServedModel, Serving

    folder = find(registered_model, version, workspace=workspace).folder
    # On a port and in a folder of its own: `serve` may run meanwhile, and is to see what the loop promotes.
    serving = Serving(
        model_folder=folder,
        model_version=version,
        model_name=registered_model,
        traffic=workspace.traffic,
        state=workspace.loop,
        max_new_tokens=model.max_new_tokens,
        precision=model.answering_precision,
    )
    with (
        ServedModel(serving) as served,
        progress(f"traffic of version {version}", len(questions.root), unit="questions") as advance,
    ):
        answers = asking.ask_all(
            [question.messages for question in questions.root],
            served.base_url,
            model=registered_model,
            api_key=served.api_key,
            max_tokens=traffic.max_tokens,
            concurrency=traffic.concurrency,
            advance=advance,
        )
    failed = [answer.error for answer in answers if answer.error]
    if failed:
        raise UserError(f"{len(failed)} of {len(answers)} questions got no answer ({failed[0]}); see {served.log}")
    with TrafficStore(workspace.traffic, registered_model) as store:
        return [record.id for record in store.records(ids=[answer.record_id for answer in answers])]
