"""Pairs of a gate's answers: kept whole, drawn at random, and shown without a word on version or verdict."""

from __future__ import annotations

import pytest
from chats import bank_chat, cake_chat
from evaluations import evaluated, judged, unjudged
from values import replace

from ontopic.data.labelled import SCOPE_BY_JUDGE, Question
from ontopic.data.labels import LabelStore, load_labels
from ontopic.errors import UserError
from ontopic.evaluation.answers import Evaluation
from ontopic.evaluation.discordant import GatePairs, answers_to_label, keep_pairs, kept_pairs, labelled_pairs, pairs_of
from ontopic.records import Verdict
from ontopic.state.workspace import Workspace

MODEL = "ontopic-banking"


def evaluation(n: int, failing: int, model: str) -> Evaluation:
    return evaluated(judged(n, failing, model)).evaluation


def gate_pairs(n: int = 40, champion: int = 10, challenger: int = 2, version: str = "2") -> GatePairs:
    return pairs_of(evaluation(n, champion, "1"), evaluation(n, challenger, version), registered_model=MODEL)


@pytest.fixture
def workspace(anywhere: Workspace) -> Workspace:
    return anywhere


@pytest.fixture
def store(workspace: Workspace) -> LabelStore:
    return LabelStore(workspace.lines(workspace.labels / "banking.jsonl"))


def test_pairs_differ_by_verdict_and_one_answer_twice_is_no_pair() -> None:
    champion, challenger = evaluation(40, 10, "1"), evaluation(40, 2, "2")
    records = [*challenger.records]
    records[39] = champion.records[39]  # word for word
    verdicts = [*unjudged(1), *challenger.verdicts[1:]]
    found = pairs_of(champion, replace(challenger, records=records, verdicts=verdicts), registered_model=MODEL)
    assert (len(found.discordant), len(found.agreeing), found.same) == (8, 30, 1)
    assert all(pair.passes == (False, True) for pair in found.discordant)
    assert {pair.passes for pair in found.agreeing} == {(True, True), (False, False)}
    assert (found.champion, found.challenger) == ("1", "2")


def test_the_scope_of_a_question_of_the_traffic_is_left_to_the_person() -> None:
    champion = evaluation(4, 2, "1")
    questions = [replace(question, kind=SCOPE_BY_JUDGE) for question in champion.questions]
    found = pairs_of(replace(champion, questions=questions), evaluation(4, 0, "2"), registered_model=MODEL)
    assert {pair.in_scope for pair in (*found.discordant, *found.agreeing)} == {None}


def test_each_gate_of_other_models_or_questions_is_kept_by_itself(workspace: Workspace) -> None:
    kept = [gate_pairs(), gate_pairs(), gate_pairs(version="3"), gate_pairs(n=38)]
    for pairs in kept:
        keep_pairs(pairs, workspace)
    assert kept_pairs(workspace, MODEL) == kept[1:]
    assert kept_pairs(workspace, "ontopic-travel") == []
    assert kept[0].is_of_same_models(kept[3]) and not kept[0].is_of_same_models(kept[2])
    workspace.files.write(workspace.discordant / MODEL / "x.json", b"{}")
    with pytest.raises(UserError, match="cannot be read; remove the file"):
        kept_pairs(workspace, MODEL)


def test_both_answers_of_random_pairs_are_shown_and_nothing_else(workspace: Workspace, store: LabelStore) -> None:
    with pytest.raises(UserError, match="no gate has held a challenger of ontopic-banking"):
        answers_to_label(workspace, MODEL, store=store, n=5)
    pairs = gate_pairs(n=300, champion=150, challenger=50)
    keep_pairs(pairs, workspace)
    shown = answers_to_label(workspace, MODEL, store=store, n=30)
    assert len(shown) == 120  # two of 30 pairs that differ and of 30 that agree
    assert all(record.model_version == record.id == "" for record in shown)
    order = ["1" if "of 1 to" in record.answer else "2" for record in shown]
    assert 10 <= sum(order[i] != order[i + 1] for i in range(119)) <= 110  # neither model by model nor in turn
    assert 15 <= order[:60].count("1") <= 45
    numbers = sorted(int(record.question.split()[1][:-1]) for record in shown)
    assert numbers[0] < 50 and numbers[-1] > 200  # from all over
    for record in shown[:50]:
        store.add(record, "pass", by="discordant")
    assert answers_to_label(workspace, MODEL, store=store, n=30) == shown[50:]


def test_labels_of_the_gates_answers_count_for_nothing_else(workspace: Workspace, store: LabelStore) -> None:
    keep_pairs(gate_pairs(), workspace)
    first, second, *_ = answers_to_label(workspace, MODEL, store=store, n=5)
    store.add(first, "fail", by="random")
    assert first in answers_to_label(workspace, MODEL, store=store, n=5)  # is asked for here all the same
    store.add(first, "pass", by="discordant")
    store.add(second, "pass", by="discordant")
    assert [row.label for row in load_labels(store.kept, "calibration")] == ["fail"]
    assert load_labels(store.kept, "train") == []
    assert store.unlabelled([first, second]) == [second]
    store.remove(first, by="discordant")
    assert [row.label for row in store.labels()] == ["fail", "pass"]


def test_a_pair_counts_once_both_answers_are_labelled(workspace: Workspace, store: LabelStore) -> None:
    pairs = gate_pairs()
    keep_pairs(pairs, workspace)
    whole, half = pairs.discordant[:2]
    for pair, answers in ((whole, (whole.champion, whole.challenger)), (half, (half.champion,))):
        for record in answers_to_label(workspace, MODEL, store=store, n=20):
            if record.question == pair.question and record.answer in answers:
                store.add(record, "pass" if record.answer == pair.challenger else "fail", by="discordant")
    verdicts, said = labelled_pairs(pairs.discordant, load_labels(store.kept, "evaluation"))
    assert (verdicts, said) == ([(False, True)], [(False, True)])


def test_the_answers_of_two_chats_with_the_same_last_sentence_are_labelled_each_in_its_own(
    workspace: Workspace, store: LabelStore
) -> None:
    questions = [Question.asked_in(record, in_scope=True) for record in (bank_chat(), cake_chat())]
    sides = []
    for answer, outcomes in (("Now.", ("fail", "pass")), ("Later.", ("pass", "pass"))):
        verdicts = [Verdict(outcome=each, score=None, explanation="", judge_id="j") for each in outcomes]
        records = [question.answered(answer) for question in questions]
        sides.append(Evaluation(questions=questions, records=records, verdicts=verdicts))
    pairs = pairs_of(*sides, registered_model=MODEL)
    keep_pairs(pairs, workspace)
    asked = answers_to_label(workspace, MODEL, store=store, n=10)
    assert len(asked) == 4
    assert {record.asked for record in asked} == {bank_chat().asked, cake_chat().asked}
    for record in asked:
        store.add(record, "pass" if "cake" in record.asked else "fail", by="discordant")
    assert answers_to_label(workspace, MODEL, store=store, n=10) == []
    labels = load_labels(store.kept, "evaluation")
    assert labelled_pairs(pairs.discordant, labels) == ([(False, True)], [(False, False)])
    assert labelled_pairs(pairs.agreeing, labels) == ([(True, True)], [(True, True)])
