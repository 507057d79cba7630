"""People's edits of pairs: kept, and found again whatever the next training makes of the same question."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
from loopback import ROOT
from values import replace

from ontopic.config.policy import Policy, load_policy
from ontopic.data.labelled import Question
from ontopic.errors import UserError
from ontopic.records import Judged, Record, Verdict
from ontopic.state.workspace import Workspace
from ontopic.training.preference_edits import PairIds, PreferenceEdit, PreferenceEdits, edit_of, edited
from ontopic.training.preferences import PairSettings, Preference, build_preferences

POLICY = load_policy(ROOT / "configs" / "policies" / "gardening.yaml")
LABELLED = [
    *(
        Question(question=f"How tall does plant {i} of mine grow?", in_scope=True, reference=f"It grows {i} metres.")
        for i in range(40)
    ),
    *(Question(question=f"Who won the cup in {1900 + i}?", in_scope=False) for i in range(40)),
]
IDS = PairIds(LABELLED, POLICY)
PAIR = Preference(question="q?", chosen="good", rejected="bad", in_scope=True, source="model", record_id="r")


def made(seed: int) -> list[Preference]:
    """As a training makes them: of one record, and of all labelled questions, some put into a conversation."""
    record = Record(id=f"r{seed}", question="Who won the race?", answer=f"Number {seed} did.")
    verdict = Verdict(outcome="fail", score=0.1, explanation="", judge_id="j", in_scope=False)
    judged = Judged(records=[record], verdicts=[verdict])
    settings = PairSettings(seed=seed, cover=80)
    return build_preferences(judged, labelled=LABELLED, policy=POLICY, settings=settings)


def edit(pair: Preference, what="drop", **answers: str) -> PreferenceEdit:
    return edit_of(pair, IDS.of(pair), what=what, by="anna", account="a", why="because", answers=answers)


def test_a_pair_keeps_its_id_whatever_seed_conversation_and_answer_of_the_model() -> None:
    trainings = [made(seed) for seed in range(4)]
    assert any(pair.history for pair in trainings[0])
    assert any(
        question.question != pair.question and question.question in pair.question
        for pair in trainings[0]
        for question in LABELLED
    )  # one that stands beside another
    ids = [sorted(map(IDS.of, pairs)) for pairs in trainings]
    assert ids[0] == ids[1] == ids[2] == ids[3]
    assert len(set(ids[0])) == len(trainings[0]) == 81


def test_what_the_traffic_asks_has_the_id_that_it_has_unasked() -> None:
    unasked = next(pair for pair in made(0) if pair.chosen == LABELLED[3].reference)
    asked = replace(PAIR, question=LABELLED[3].question, chosen=unasked.chosen, rejected=POLICY.refusal)
    assert IDS.of(replace(asked, source="reference")) == IDS.of(unasked)


@pytest.mark.parametrize(
    "change",
    [
        {"question": "r?"},
        {"source": "teacher"},
        {"in_scope": False},
        {"rejected": "worse"},
        {"history": [{"role": "user", "content": "x"}]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_pairs_have_other_ids(change: dict) -> None:
    assert IDS.of(replace(PAIR, **change)) != IDS.of(PAIR)


def test_of_a_set_each_row_is_a_pair_of_its_own() -> None:
    row = replace(PAIR, source="set 1", record_id="")
    assert len({IDS.of(each) for each in (row, replace(row, chosen="x"), replace(row, rejected="x"))}) == 3


def test_a_dropped_and_a_changed_pair_are_so_in_every_training_to_come() -> None:
    first = made(0)
    dropped = next(pair for pair in first if pair.chosen == LABELLED[5].reference)
    leaked = next(pair for pair in first if pair.record_id)
    edits = {e.pair: e for e in (edit(dropped), edit(leaked, "change", chosen="I cannot say who won."))}
    for seed in range(4):
        done = edited(made(seed), edits, ids=IDS)
        pairs = [pair for _, pair in done.pairs]
        assert (done.dropped, done.changed, set(done.used)) == (1, 1, set(edits))
        assert not [pair for pair in pairs if pair.chosen == LABELLED[5].reference]
        (changed,) = [pair for pair in pairs if pair.record_id]
        assert (changed.chosen, changed.rejected) == ("I cannot say who won.", f"Number {seed} did.")
        assert {pair_id for pair_id, _ in done.pairs} == {IDS.of(pair) for pair in made(seed)} - {edit(dropped).pair}
    assert [pair for _, pair in edited(made(1), {}, ids=IDS).pairs] == made(1)


def test_a_change_that_the_model_has_come_to_say_itself_leaves_no_pair() -> None:
    change = edit(PAIR, "change", chosen="Better!")
    assert edited([replace(PAIR, rejected="bad")], {change.pair: change}, ids=IDS).changed == 1
    same = change.model_copy(update={"pair": IDS.of(replace(PAIR, rejected="better"))})
    assert edited([replace(PAIR, rejected="better")], {same.pair: same}, ids=IDS).pairs == []


@pytest.mark.parametrize(("text", "said"), [("a\ud800", "half a character"), ("x" * 20_001, "20,001 characters")])
def test_an_answer_that_cannot_be_trained_on_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        edit(PAIR, "change", chosen=text)


@pytest.mark.parametrize(
    "answers", [{"chosen": " "}, {"rejected": ""}, {"chosen": "BAD"}, {"rejected": "Good."}], ids=str
)
def test_a_change_that_leaves_no_pair_is_refused(answers: dict[str, str]) -> None:
    with pytest.raises(UserError, match="drop it"):
        edit(PAIR, "change", **answers)


def test_the_last_edit_of_a_pair_counts_and_one_can_be_taken_back(anywhere: Workspace, banking: Policy) -> None:
    edits = PreferenceEdits.of(banking, anywhere)
    assert (edits.standing(), edits.sha256) == ({}, "")
    first, other = edit(PAIR), edit(replace(PAIR, question="another?"), "change", chosen="y")
    edits.add(first)
    alone = edits.sha256
    edits.add(other)
    edits.add(edit(PAIR, "change", chosen="z"))
    assert [(e.what, e.chosen) for e in edits.standing().values()] == [("change", "y"), ("change", "z")]
    edits.add(first.model_copy(update={"what": "restore"}))
    edits.add(other.model_copy(update={"what": "restore"}))
    assert (edits.standing(), edits.sha256) == ({}, "")
    edits.add(first)
    assert edits.sha256 == alone != ""
    assert len(edits.kept.read().splitlines()) == 6  # nothing is forgotten


def _add_many(path: Path, start: int) -> None:
    for i in range(start, start + 20):
        PreferenceEdits(path).add(edit(replace(PAIR, question=f"q{i}?")))


def test_several_processes_lose_no_edit(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_add_many, args=(tmp_path / "e.jsonl", 100 * i)) for i in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(PreferenceEdits(tmp_path / "e.jsonl").standing()) == 60


def test_a_half_written_last_line_is_dropped_and_any_other_is_named(tmp_path: Path) -> None:
    edits = PreferenceEdits(tmp_path / "e.jsonl")
    edits.add(edit(PAIR))
    whole = edits.kept.path.read_text()
    edits.kept.path.write_text(whole + whole[:40])
    assert len(edits.standing()) == 1
    edits.add(edit(replace(PAIR, question="r?")))
    assert len(edits.standing()) == 2
    edits.kept.path.write_text(whole + json.dumps({"pair": 3}) + "\n")
    with pytest.raises(UserError, match=r"e.jsonl:2: is no edit as this program writes it"):
        edits.standing()
