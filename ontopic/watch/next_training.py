"""What the next training of the champion will see, as far as it is known before it begins."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from ontopic.config.policy import Policy
from ontopic.config.settings import Settings
from ontopic.data.labelled import Question
from ontopic.data.rows import source_sha256
from ontopic.data.same_question import identity
from ontopic.data.sample import Sample, sampled_questions
from ontopic.errors import UserError
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Judged
from ontopic.registry.promotions import open_registry
from ontopic.registry.unnamed import named
from ontopic.state.workspace import Workspace, is_there
from ontopic.traffic.store import TrafficStore
from ontopic.training import preferences
from ontopic.training.corrections import load_corrections
from ontopic.training.next_preferences import (
    NextPreferences,
    PreferenceTerms,
    next_preferences,
    taught_questions,
    to_learn_from,
)
from ontopic.training.preferences import WrittenAnswers
from ontopic.watch.retraining import NEWEST_WINDOWS, split


class NextTraining(BaseModel):
    """What the next training will see.

    Attributes:
        champion: the version that it trains from.
        seen: its pairs.
        records: how many judged records of the traffic they are made from.
        held_apart: how many more were left out, as they are nearly questions of the evaluation or calibration split.
        in_words: where these records come from.
        unwritten: how many questions in scope have no written answer yet, to which the training has one written.
    """

    model_config = ConfigDict(frozen=True)
    champion: str
    seen: NextPreferences
    records: int
    held_apart: int
    in_words: str
    unwritten: int


def asked_sample(settings: Settings, policy: Policy) -> Sample:
    """The questions that the loop asks the champion."""
    traffic = settings.traffic
    return Sample(
        source=policy.questions,
        source_sha256=source_sha256(policy.questions),
        languages=policy.languages,
        split="train",
        n=traffic.questions,
        in_scope_share=traffic.in_scope_share,
        seed=traffic.seed,
    )


def next_training(settings: Settings, policy: Policy, *, workspace: Workspace) -> NextTraining:
    """Build the pairs from the judged traffic in the state folder; nothing is asked, judged or generated.

    Where the champion has windows of real traffic, that is as `watch` retrains it; else as the loop trains it, on the
    answers that it asked for.

    Raises:
        UserError: there is no champion, or no judged traffic of it; or as ``next_preferences``.
    """
    champion = open_registry(workspace, policy.registered_model).champion()
    if not champion:
        raise UserError(f"{policy.registered_model} has no champion yet; run `python run.py` first")
    judged, held_out, said = _judged(settings, policy, champion=champion, workspace=workspace)
    learned = to_learn_from(judged, policy)
    terms = PreferenceTerms(training=settings.training, held_out=held_out)
    corrections = load_corrections(policy, workspace, keys=settings.training.teaching_keys).taught
    written = WrittenAnswers(corrections=corrections)
    seen = next_preferences(learned, terms=terms, policy=policy, workspace=workspace, written=written)
    corrected = {identity(each.record.request): each.answer for each in corrections}
    open_questions = preferences.unwritten(
        learned, labelled=taught_questions(policy), taught=corrected, least_certainty=settings.training.least_certainty
    )
    return NextTraining(
        champion=champion,
        seen=seen,
        records=len(learned.records),
        held_apart=len(judged.records) - len(learned.records),
        in_words=said,
        unwritten=len(open_questions),
    )


def _judged(
    settings: Settings, policy: Policy, *, champion: str, workspace: Workspace
) -> tuple[Judged, list[Question], str]:
    """The records that the training is on, what the gate keeps of them, and where they come from, in words."""
    name = policy.registered_model
    if not is_there(workspace.windows):
        return Judged(records=[], verdicts=[]), [], "of which there is no judged traffic yet"
    with (
        named(TrafficStore(workspace.traffic, name), workspace) as traffic,
        named(WindowStore(workspace.windows, name), workspace) as own,
    ):
        windows = own.closed(NEWEST_WINDOWS, champion)
        judged = own.judged(windows, traffic)
        watched = any(not own.was_put(window) for window in windows)
    if watched:
        train, held_out = split(judged, settings.watch.training_records)
        kept = f"{len(judged.records) - len(train.records):,} more are kept for the gate or are older"
        return train, held_out, f"as `watch` retrains version {champion}, on its newest windows' traffic; {kept}"
    wanted = {question.identity for question in sampled_questions(asked_sample(settings, policy))}
    rows = {
        key: (record, verdict)
        for record, verdict in zip(judged.records, judged.verdicts, strict=True)
        if (key := identity(record.request)) in wanted
    }
    asked = Judged(records=[record for record, _ in rows.values()], verdicts=[verdict for _, verdict in rows.values()])
    missing = f"; {len(wanted) - len(rows):,} of its questions are not asked yet" if len(rows) < len(wanted) else ""
    return asked, [], f"as the loop trains from version {champion}, on the answers that it asks for{missing}"
