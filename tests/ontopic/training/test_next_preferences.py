"""What a training sees: nothing that is held apart, the sets beside the traffic, and edits of either."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from chats import bank_chat
from loopback import ROOT
from taught import write_rows

from ontopic.config.policy import load_policy
from ontopic.config.training_settings import PreferenceSetSettings, TrainingSettings
from ontopic.data.labelled import Question, load_questions
from ontopic.records import Judged, Message, Record, Verdict
from ontopic.state.workspace import Workspace
from ontopic.training.next_preferences import (
    NextPreferences,
    PreferenceTerms,
    next_preferences,
    sources_sha256,
    to_learn_from,
)
from ontopic.training.preference_edits import PreferenceEdits, edit_of
from ontopic.training.preferences import PairSettings, build_preferences, preferences_hash

POLICY = load_policy(ROOT / "configs" / "policies" / "gardening.yaml")
NEEDED = {"beta": 0.2, "learning_rate": 1e-3, "epochs": 1, "batch_size": 4, "max_rejected_tokens": 8, "save_steps": 9}


def training(sets: Sequence[PreferenceSetSettings] = (), **more: float) -> TrainingSettings:
    return TrainingSettings.model_validate({**NEEDED, "preference_sets": list(sets), **more})


def judged(records: Sequence[Record], *, in_scope: bool = False) -> Judged:
    verdict = Verdict(outcome="fail", score=0.1, explanation="", judge_id="j", in_scope=in_scope, declined=False)
    return Judged(records=list(records), verdicts=[verdict] * len(records))


def outside(n: int) -> list[Record]:
    return [Record(id=f"r{i}", question=f"Who won the race of {1900 + i}?", answer=f"Number {i}.") for i in range(n)]


def see(
    of: Judged, workspace: Workspace, settings: TrainingSettings, held_out: Sequence[Question] = ()
) -> NextPreferences:
    terms = PreferenceTerms(training=settings, held_out=list(held_out))
    return next_preferences(of, terms=terms, policy=POLICY, workspace=workspace)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(root=tmp_path / "state")


def test_without_sets_and_edits_it_is_what_the_traffic_gives(workspace: Workspace) -> None:
    of = judged(outside(9))
    pairs = see(of, workspace, training(cover=10)).pairs
    known = [q for q in load_questions(POLICY.questions) if q.split == "train"]
    settings = PairSettings.model_validate(training(cover=10))
    assert pairs == build_preferences(of, labelled=known, policy=POLICY, settings=settings)


def test_traffic_that_is_nearly_a_held_apart_question_teaches_nothing() -> None:
    questions = {
        split: [q for q in load_questions(POLICY.questions) if q.split == split]
        for split in ("train", "evaluation", "calibration")
    }
    long = {split: next(q.question for q in of if len(q.question) > 40) for split, of in questions.items()}
    chat = bank_chat(id="chat", question=long["evaluation"])
    messages = (*chat.messages[:-1], Message(role="user", content=long["evaluation"]))
    records = [
        Record(id="train", question=long["train"], answer="a"),
        Record(id="same", question=long["evaluation"].lower(), answer="a"),
        Record(id="nearly", question=f"{long['calibration']} please", answer="a"),
        chat.model_copy(update={"messages": messages}),
        Record(id="thanks", question="And then?", answer="a"),
    ]
    left = to_learn_from(judged(records), POLICY)
    assert [record.id for record in left.records] == ["train", "thanks"]
    assert len(left.verdicts) == 2


def test_what_the_gate_will_ask_of_the_traffic_is_not_learned_from_a_set(workspace: Workspace, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"How do I prune the old apple tree of garden {i}?", "chosen": "a", "rejected": "b"}
        for i in range(2)
    ]
    rows.append({"prompt": "May the hedge be cut in June already?", "chosen": "a", "rejected": "b"})
    sets = [PreferenceSetSettings(source=str(write_rows(tmp_path / "s.jsonl", rows)), share=0.3)]
    held_out = [Question(question="may the hedge be cut in june, already", in_scope=True)]
    found = see(judged(outside(20)), workspace, training(sets), held_out)
    assert sorted(pair.question for pair in found.pairs if pair.source == "set 1") == [
        row["prompt"] for row in rows[:2]
    ]
    assert (len(found.sets[0].pairs), found.sets[0].left_out) == (2, 1)


def test_an_edit_reaches_pairs_of_the_traffic_and_of_sets_drawn_or_not(workspace: Workspace, tmp_path: Path) -> None:
    rows = [{"prompt": f"How wide does shrub {i} grow?", "chosen": f"{i} m", "rejected": "b"} for i in range(50)]
    sets = [PreferenceSetSettings(source=str(write_rows(tmp_path / "s.jsonl", rows)), share=0.2)]
    of, edits = judged(outside(20)), PreferenceEdits.of(POLICY, workspace)
    first = see(of, workspace, training(sets))
    assert len(first.pairs) == 25 and len(first.left) == 45
    drawn = next(i for i, pair in enumerate(first.pairs) if pair.source == "set 1")
    of_traffic = next(i for i, pair in enumerate(first.pairs) if pair.record_id)
    undrawn = next(iter(first.left))
    for pair_id in (first.ids[drawn], first.ids[of_traffic], undrawn):
        pair = first.pair(pair_id)
        assert pair is not None
        edits.add(edit_of(pair, pair_id, what="drop", by="b", account="a", why="w"))
    for seed in range(2):
        after = see(of, workspace, training(sets, seed=seed))
        gone = {first.ids[drawn], first.ids[of_traffic], undrawn}
        assert not gone & {*after.ids, *after.left}
        assert (after.dropped, after.unused_edits) == (3, [])
    assert see(judged([]), workspace, training(sets)).unused_edits == [first.ids[of_traffic]]


def test_a_cached_step_runs_anew_once_a_set_or_an_edit_has_changed(workspace: Workspace, tmp_path: Path) -> None:
    rows = [{"prompt": "How wide does it grow?", "chosen": "2 m", "rejected": "b"}]
    sets = [PreferenceSetSettings(source=str(write_rows(tmp_path / "s.jsonl", rows)), share=0.2)]

    def now(of: TrainingSettings) -> str:
        return sources_sha256(of, POLICY, workspace=workspace)

    seen = [now(training()), now(training(sets))]
    write_rows(tmp_path / "s.jsonl", [rows[0] | {"chosen": "3 m"}])
    seen.append(now(training(sets)))
    (pair,) = see(judged([]), workspace, training(sets)).pairs
    edit = edit_of(pair, "0123456789ab", what="change", by="b", account="a", why="w", answers={"chosen": "4 m"})
    PreferenceEdits.of(POLICY, workspace).add(edit)
    seen.append(now(training(sets)))
    PreferenceEdits.of(POLICY, workspace).add(edit.model_copy(update={"chosen": "5 m"}))
    seen.append(now(training(sets)))
    assert len(set(seen)) == 5
    assert preferences_hash([pair]) != preferences_hash([])
