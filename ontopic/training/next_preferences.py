"""The pairs that a training sees: those of the traffic, as people edited them, and those of the sets that they have."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from ontopic.config.policy import Policy
from ontopic.config.settings import TeacherSettings
from ontopic.config.training_settings import TrainingSettings
from ontopic.data.labelled import Question, load_questions
from ontopic.data.same_question import near_duplicates, spoken
from ontopic.records import Judged
from ontopic.state.workspace import Workspace
from ontopic.training.corrections import load_corrections
from ontopic.training.held_apart import near_held_apart
from ontopic.training.preference_edits import PairIds, PreferenceEdits, edited
from ontopic.training.preference_sets import PreferenceSet, mixed, read_sets
from ontopic.training.preferences import PairSettings, Preference, WrittenAnswers, build_preferences, preferences_hash


class PreferenceTerms(BaseModel):
    """What a training's pairs are made by, beside the traffic.

    Attributes:
        teacher: ``None`` where there is none.
        held_out: questions of the traffic that the gate will ask.
        sources_sha256: of people's sets, corrections and edits, as they are when it begins.
    """

    model_config = ConfigDict(frozen=True)
    training: TrainingSettings
    teacher: TeacherSettings | None = None
    held_out: list[Question] = []
    sources_sha256: str = ""


class NextPreferences(BaseModel):
    """What a training sees.

    Attributes:
        pairs: in the order that they are trained in.
        ids: of each pair, as ``PairIds`` gives it before an edit.
        sets: as they were read, without what is edited.
        left: of the sets, the pairs behind their ids that were not drawn.
        dropped, changed: how many pairs people's edits left out and changed.
        unused_edits: ids of edits whose pair there is not.
        edits_sha256: as ``PreferenceEdits`` has it.
    """

    model_config = ConfigDict(frozen=True)
    pairs: list[Preference]
    ids: list[str]
    sets: list[PreferenceSet] = []
    left: dict[str, Preference] = {}
    dropped: int = 0
    changed: int = 0
    unused_edits: list[str] = []
    edits_sha256: str = ""

    def pair(self, pair_id: str) -> Preference | None:
        """The pair with this id, drawn or not; ``None`` where there is none."""
        return dict(zip(self.ids, self.pairs, strict=True)).get(pair_id, self.left.get(pair_id))

    @property
    def sha256(self) -> str:
        """The hash of the pairs, as the challenger's version bears it."""
        return preferences_hash(self.pairs)

    @property
    def by_source_and_scope(self) -> dict[tuple[str, bool], int]:
        """How many pairs, by where the chosen answer comes from and whether the question is in scope."""
        return dict(sorted(Counter((pair.source, pair.in_scope) for pair in self.pairs).items()))


def taught_questions(policy: Policy) -> list[Question]:
    """The labelled questions that pairs may be made from."""
    known = load_questions(policy.questions, languages=policy.languages)
    return [question for question in known if question.split in ("train", "judge")]


def to_learn_from(judged: Judged, policy: Policy) -> Judged:
    """The judged traffic without what is nearly a question of the evaluation or calibration split."""
    near = near_held_apart([record.request for record in judged.records], policy)
    rows = [row for i, row in enumerate(zip(judged.records, judged.verdicts, strict=True)) if i not in near]
    return Judged(records=[record for record, _ in rows], verdicts=[verdict for _, verdict in rows])


def next_preferences(
    judged: Judged,
    *,
    terms: PreferenceTerms,
    policy: Policy,
    workspace: Workspace,
    written: WrittenAnswers | None = None,
) -> NextPreferences:
    """The pairs of a training on judged traffic.

    Args:
        judged: as ``to_learn_from`` leaves it.
        written: the answers that were written for it.

    Raises what ``read_sets`` and ``PreferenceEdits.standing`` raise.
    """
    labelled, training = taught_questions(policy), terms.training
    made = build_preferences(
        judged, labelled=labelled, policy=policy, settings=PairSettings.model_validate(training), written=written
    )
    ids, edits = PairIds(labelled, policy), PreferenceEdits.of(policy, workspace)
    standing = edits.standing()
    sets = _without(read_sets(training.preference_sets, policy), terms.held_out)
    all_edited = [edited(pairs, standing, ids=ids) for pairs in (made, *(each.pairs for each in sets))]
    of_traffic, *of_sets = (each.pairs for each in all_edited)
    drawn = mixed(
        of_traffic,
        [(each.share, pairs) for each, pairs in zip(sets, of_sets, strict=True)],
        seed=training.seed,
    )
    taken, used = {pair_id for pair_id, _ in drawn}, {each for edits_of in all_edited for each in edits_of.used}
    return NextPreferences(
        pairs=[pair for _, pair in drawn],
        ids=[pair_id for pair_id, _ in drawn],
        sets=sets,
        left={pair_id: pair for pairs in of_sets for pair_id, pair in pairs if pair_id not in taken},
        dropped=sum(each.dropped for each in all_edited),
        changed=sum(each.changed for each in all_edited),
        unused_edits=[each for each in standing if each not in used],
        edits_sha256=edits.sha256,
    )


def _without(sets: Sequence[PreferenceSet], held_out: Sequence[Question]) -> list[PreferenceSet]:
    """The sets without pairs on questions that the gate will ask of the traffic."""
    asked, left = [question.spoken for question in held_out], []
    for each in sets:
        near = {i for i, _ in near_duplicates([spoken(pair.messages) for pair in each.pairs], asked)}
        pairs = [pair for i, pair in enumerate(each.pairs) if i not in near]
        left.append(each.model_copy(update={"pairs": pairs, "left_out": each.left_out + len(near)}))
    return left


def sources_sha256(training: TrainingSettings, policy: Policy, *, workspace: Workspace) -> str:
    """sha256 (hex) of what people have in sets, and have corrected and edited: a part of a step's cache key.

    Raises what ``read_sets``, ``load_corrections`` and ``PreferenceEdits.standing`` raise.
    """
    hashes = [preferences_hash(each.pairs) for each in read_sets(training.preference_sets, policy)]
    hashes.append(load_corrections(policy, workspace, keys=training.teaching_keys).sha256)
    return hashlib.sha256("".join([*hashes, PreferenceEdits.of(policy, workspace).sha256]).encode()).hexdigest()
