"""Pairs of earlier rounds: what the champion learned from traffic, found again and mixed with the newest pairs.

Each version's run in MLflow holds the pairs that it was trained on. So what a training sees of earlier rounds is in the
champion's own run, and no other version is needed for it. A training that went on from another version saw its own
round alone; then the run of the version before it is read too, and so on.
"""

from __future__ import annotations

import json
import logging
import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ontopic.config.policy import Policy
from ontopic.config.training_settings import TrainingSettings
from ontopic.data.labelled import Question, load_questions
from ontopic.data.language import refusal_to
from ontopic.data.same_question import identity, normalized
from ontopic.registry.base_version import KIND, OF_BASE
from ontopic.registry.erased_runs import PREFERENCES
from ontopic.registry.promotions import open_registry
from ontopic.registry.versions import BASE_VERSION
from ontopic.state.erased_files import ERASED
from ontopic.state.workspace import Workspace
from ontopic.training.preference_edits import PairIds, PreferenceEdits, edited
from ontopic.training.preferences import REFUSAL, Preference

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

KEPT = 0.5
"""The share of pairs that goes on to the next round. Rounds of one size give a half, a quarter, an eighth of it, so
that all earlier ones together are never more than one round, and training takes no longer however many there were."""


def all_pairs(
    newest: Sequence[Preference], champion: str, *, settings: TrainingSettings, policy: Policy, workspace: Workspace
) -> list[Preference]:
    """What a challenger is trained on: the newest pairs, and earlier ones where it does not begin with a model that has
    learned from them. What people drop and change holds for the earlier ones too.

    Args:
        champion: its version.
    """
    if settings.start == "champion":
        return list(newest)
    rounds = earlier_rounds(champion, registered_model=policy.registered_model, workspace=workspace)
    labelled = load_questions(policy.questions, languages=policy.languages) if rounds else []
    if rounds and (edits := PreferenceEdits.of(policy, workspace).standing()):
        ids = PairIds([question for question in labelled if question.split in ("train", "judge")], policy)
        rounds = [[pair for _, pair in edited(pairs, edits, ids=ids).pairs] for pairs in rounds]
    return with_earlier(newest, rounds, policy=policy, labelled=labelled, seed=settings.seed)


def earlier_rounds(champion: str, *, registered_model: str, workspace: Workspace) -> list[list[Preference]]:
    """The pairs that the champion was trained on, then those of the version that it went on from, and so on to a base.

    Where a version or its pairs are gone, that is logged, and older ones are not looked for.
    """
    from mlflow import MlflowClient  # seconds, which who only imports this need not wait

    client = MlflowClient(tracking_uri=workspace.mlflow_uri)
    registry = open_registry(workspace, registered_model)
    rounds: list[list[Preference]] = []
    version = champion
    while version:
        if version not in registry.versions():
            logger.warning("version %s was deleted: what it was trained on before is not used again", version)
            break
        tags = registry.tags_of(version)
        if tags.get(KIND) == OF_BASE:
            break
        pairs = _pairs_of(client, client.get_model_version(registered_model, version))
        if pairs is None:
            logger.warning("MLflow holds no pairs that version %s was trained on; they are not used again", version)
            break
        rounds.append(pairs)
        version = tags.get(BASE_VERSION, "")
    return rounds


def with_earlier(
    newest: Sequence[Preference],
    rounds: Sequence[Sequence[Preference]],
    *,
    policy: Policy,
    labelled: Sequence[Question],
    seed: int,
) -> list[Preference]:
    """The newest pairs and some of the earlier rounds', shuffled; the newest as they are where there is no other.

    Of earlier rounds the pairs of traffic alone count, as all others are made anew each time. Of each round, by the
    number of rounds since, ``KEPT``, its square and so on of the pairs of either scope are drawn. A question of the
    newest pairs is not taken again, nor one whose label says another scope than the pair, nor a pair of which something
    was erased. The refusal that is chosen is the policy's of now.

    Args:
        rounds: from ``earlier_rounds``.
        labelled: all questions whose scope is known.
    """
    chance = random.Random(seed)
    scope = {question.identity: question.in_scope for question in labelled}
    taken = {identity(pair.messages) for pair in newest}
    earlier = list[Preference]()
    for age, pairs in enumerate(rounds, 1):
        for side in (True, False):
            of = [pair for pair in pairs if pair.record_id and pair.in_scope is side]
            for pair in chance.sample(of, round(len(of) * KEPT**age)):
                asked, renewed = identity(pair.messages), _as_of_now(pair, policy)
                if renewed and asked not in taken and scope.get(asked, side) is side:
                    taken.add(asked)
                    earlier.append(renewed)
    if not earlier:
        return list(newest)
    mixed = [*newest, *earlier]
    chance.shuffle(mixed)
    return mixed


def _as_of_now(pair: Preference, policy: Policy) -> Preference | None:
    """The pair with the policy's present refusal; ``None`` where nothing is left of it to learn from."""
    if not pair.in_scope and pair.source == REFUSAL:
        pair = pair.model_copy(update={"chosen": refusal_to(policy, pair.question)})
    texts = (pair.chosen, pair.rejected, *(message["content"] for message in pair.messages))
    erased = any(text == ERASED or not text.strip() for text in texts)
    return None if erased or normalized(pair.chosen) == normalized(pair.rejected) else pair


def _pairs_of(client: MlflowClient, version: Any) -> list[Preference] | None:
    """What a version was trained on; ``None`` where no run holds it any more."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(version.run_id)
        holders = [run.info.run_id]
        # Where an earlier release took the pairs from a cache, an older run of the same experiment holds them.
        if sha256 := version.tags.get("ontopic.preferences_sha256"):
            same = f"params.preferences_sha256 = '{sha256}'"
            holders += [each.info.run_id for each in client.search_runs([run.info.experiment_id], same)]
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    for holder in dict.fromkeys(holders):
        if any(each.path == PREFERENCES for each in client.list_artifacts(holder)):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(client.download_artifacts(holder, PREFERENCES, folder))
                return _read(path.read_text(encoding="utf-8"))
    return None


def _read(text: str) -> list[Preference] | None:
    """The pairs of a table as MLflow logs one, without rows that are none; ``None`` where it is none."""
    try:
        table = json.loads(text)
    except ValueError:  # what could not be deleted from a server was written over
        return None
    if not isinstance(table, dict) or not all(isinstance(table.get(part), list) for part in ("columns", "data")):
        return None
    found = []
    for row in table["data"]:
        try:
            cells: Mapping[str, Any] = dict(zip(table["columns"], row, strict=True))
            found.append(Preference.model_validate(cells))
        except (TypeError, ValueError, ValidationError):  # as earlier releases left a row of which something was erased
            continue
    return found
