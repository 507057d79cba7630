"""Right answers that people wrote: which of them teach, and what is chosen over what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ontopic.config.policy import Policy
from ontopic.data.drawing import drawable
from ontopic.data.held_out import is_held_out
from ontopic.data.labelled import Question
from ontopic.data.labels import LabelStore, labels_of
from ontopic.records import Feedback, Judged, Message, Record, Verdict
from ontopic.state.workspace import Workspace
from ontopic.traffic.store import TrafficStore
from ontopic.training.corrections import Correction, load_corrections
from ontopic.training.preferences import (
    PairSettings,
    Preference,
    WrittenAnswers,
    build_preferences,
    preferences_hash,
)
from ontopic.training.wrong_answers import WrongAnswer

NAMES = ("standing order", "mortgage", "overdraft", "cheque book", "direct debit", "travel money", "loan", "card PIN")
ALL = [
    Record(question=f"How do I change my {name}, step {i}?", answer=f"Ducks {i}.") for name in NAMES for i in range(9)
]
TEACHING = [r for r in drawable(ALL, "feedback") if not is_held_out(r)]


TOWNS = ("Lima", "Oslo", "Cairo", "Quito", "Accra", "Minsk", "Perth", "Turin", "Kyoto", "Hanoi", "Delhi", "Paris")
BRANCHES = {"train": "stamps", "calibration": "umbrellas", "evaluation": "telescopes"}


@pytest.fixture
def policy(banking: Policy, tmp_path: Path) -> Policy:
    """With some questions a split, none like those of another or of the records."""
    rows = [
        {"question": f"Are {sold} sold by the bank in {town}?", "in_scope": True, "reference": "No.", "split": split}
        for split, sold in BRANCHES.items()
        for town in TOWNS
    ]
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return banking.model_copy(update={"questions": str(path)})


def taught(policy: Policy, workspace: Workspace, *keys: str) -> dict[str, str]:
    return {c.record.question: c.answer for c in load_corrections(policy, workspace, keys=keys).taught}


def test_what_measures_never_teaches_whoever_drew_it(policy: Policy, tmp_path: Path) -> None:
    workspace = Workspace(root=tmp_path)
    store = LabelStore(labels_of(policy, workspace))
    for record in ALL:
        store.add(record, "fail", by="feedback", correction=f"Right of {record.question}")
    assert set(taught(policy, workspace)) == {record.question for record in TEACHING}
    assert 0 < len(TEACHING) < len(ALL) / 2
    assert load_corrections(policy, workspace, keys=()).held_apart == len(ALL) - len(TEACHING)
    # The same labels of the draws that are measured on.
    for by, split in (("random", "calibration"), ("discordant", "evaluation")):
        other = Workspace(root=tmp_path / by)
        store = LabelStore(labels_of(policy, other))
        store.add(TEACHING[0], "fail", by=by, correction="Right.")  # type: ignore[arg-type]
        assert store.labels()[0].split == split
        assert taught(policy, other) == {}


@pytest.mark.parametrize(
    "said",
    [
        ["Are {sold} sold by the bank in {town}?"],
        ["are {sold} sold by the bank, in {town}"],  # nearly the same words
        ["Are {sold} sold by the bank in {town}?", "And when does it open?"],  # a later turn of it
        ["Hello there, I have two things to ask of {town}.", "Are {sold} sold by the bank in {town}?"],
    ],
)
def test_a_question_of_the_card_or_the_gate_never_teaches_in_any_form(
    policy: Policy, tmp_path: Path, said: list[str]
) -> None:
    found = {}
    for split, sold in BRANCHES.items():
        for town in TOWNS:
            turns = []
            for text in said:
                turns += [Message(role="user", content=text.format(sold=sold, town=town))]
                turns += [Message(role="assistant", content=f"Ducks of {town}.")]
            record = Record(question=turns[-2].content, answer=turns[-1].content, messages=tuple(turns[:-1]))
            if drawable([record], "feedback") and not is_held_out(record):  # so that only its question may stop it
                break
        workspace = Workspace(root=tmp_path / split)
        LabelStore(labels_of(policy, workspace)).add(record, "fail", by="feedback", correction="Right.")
        found[split] = len(taught(policy, workspace))
    assert found == {"train": 1, "calibration": 0, "evaluation": 0}


def test_feedback_teaches_where_its_key_is_trusted_and_a_labeller_goes_before_it(
    policy: Policy, tmp_path: Path
) -> None:
    workspace = Workspace(root=tmp_path)
    with TrafficStore(workspace.traffic, policy.registered_model) as traffic:
        for i, record in enumerate(ALL):
            traffic.add(record.model_copy(update={"id": f"r{i}"}))
            for by in ("branch", "website"):
                said = f"Right by {by}, {i}."
                traffic.add_feedback(Feedback(record_id=f"r{i}", thumb="down", by=by, correction=said))
    assert taught(policy, workspace) == {}
    by_branch = taught(policy, workspace, "branch")
    assert set(by_branch) == {record.question for record in TEACHING}
    assert all(answer.startswith("Right by branch") for answer in by_branch.values())
    store = LabelStore(labels_of(policy, workspace))
    store.add(TEACHING[0], "pass", by="feedback")  # a labeller saw it, and found nothing wrong
    store.add(TEACHING[1], "fail", by="feedback", correction="Right by a labeller.")
    left = taught(policy, workspace, "branch")
    assert TEACHING[0].question not in left
    assert left[TEACHING[1].question] == "Right by a labeller."
    before = load_corrections(policy, workspace, keys=["branch"]).sha256
    store.add(TEACHING[1], "fail", by="feedback", correction="Another.")
    assert load_corrections(policy, workspace, keys=["branch"]).sha256 != before
    assert load_corrections(policy, workspace, keys=["branch"]).taught[-1].record.id.startswith("r")


def verdict(in_scope: bool | None, outcome: str = "pass", declined: bool = False) -> Verdict:
    said = {"outcome": outcome, "score": 0.5, "explanation": "", "judge_id": "judge"}
    return Verdict.model_validate(said | {"in_scope": in_scope, "declined": declined})


def built(
    policy: Policy, *rows: tuple[Record, Verdict], labelled: list[Question] | None = None, **written: object
) -> list[Preference]:
    judged = Judged(records=[record for record, _ in rows], verdicts=[verdict for _, verdict in rows])
    return build_preferences(
        judged,
        labelled=labelled or [],
        policy=policy,
        settings=PairSettings(),
        written=WrittenAnswers.model_validate(written),
    )


def sources(pairs: list[Preference]) -> dict[str, tuple[str, str]]:
    return {pair.source: (pair.chosen, pair.rejected) for pair in pairs}


CARD = Record(question="How do I lock my card?", answer="Call the police.", id="card")


def test_a_correction_is_chosen_over_the_models_own_answer_and_over_the_refusal(banking: Policy) -> None:
    right = Correction(record=CARD, answer="Lock it in the app.")
    asked = CARD.model_copy(update={"answer": "Eat it.", "id": "later"})
    labelled = [Question(question=CARD.question, in_scope=True, reference="Written before.")]
    for rows in ((), ((asked, verdict(True)),), ((CARD, verdict(False)),)):
        pairs = built(banking, *rows, corrections=[right], labelled=labelled)
        assert sources(pairs) == {
            "correction": ("Lock it in the app.", banking.refusal),
            "correction_over_own_answer": ("Lock it in the app.", "Call the police."),
        }
        assert {(pair.record_id, pair.in_scope, pair.beginnings) for pair in pairs} == {("card", True, False)}


def test_the_newest_correction_of_a_question_is_chosen_over_all_answers_that_were_corrected(banking: Policy) -> None:
    other = CARD.model_copy(update={"answer": "Burn it.", "id": "other"})
    given = [Correction(record=CARD, answer="Old."), Correction(record=other, answer="New.")]
    found = {(p.chosen, p.rejected) for p in built(banking, corrections=given)}
    assert found == {("New.", banking.refusal), ("New.", "Call the police."), ("New.", "Burn it.")}


@pytest.mark.parametrize(
    ("in_scope", "answer", "chosen"),
    [
        (None, "Lock it.", "Lock it."),
        (True, "Lock it.", "Lock it."),
        (None, "{refusal}", "{refusal}"),  # who writes the refusal says that it is out of scope
        (False, "{refusal}", "{refusal}"),
        (False, "A poem on cards.", "{refusal}"),  # no answer is ever taught out of scope
    ],
)
def test_the_scope_of_a_correction_is_what_the_person_says_of_it(
    banking: Policy, in_scope: bool | None, answer: str, chosen: str
) -> None:
    right = Correction(
        record=CARD.model_copy(update={"in_scope": in_scope}), answer=answer.format(refusal=banking.refusal)
    )
    pairs = built(banking, corrections=[right])
    assert {pair.chosen for pair in pairs} == {chosen.format(refusal=banking.refusal)}
    assert {pair.in_scope for pair in pairs} == {chosen == "Lock it."}
    assert ("Call the police.") in {pair.rejected for pair in pairs}
    assert all(pair.rejected != banking.refusal or pair.in_scope for pair in pairs)


def test_a_refusal_that_was_corrected_gives_one_pair(banking: Policy) -> None:
    refused = CARD.model_copy(update={"answer": banking.refusal.upper()})
    (pair,) = built(banking, corrections=[Correction(record=refused, answer="Lock it.")])
    assert (pair.chosen, pair.rejected, pair.source) == ("Lock it.", banking.refusal, "correction")
    assert (
        built(banking, corrections=[Correction(record=CARD, answer="call the police")])[0].rejected == banking.refusal
    )


def test_wrong_answers_come_on_top_and_only_where_somebody_wrote_the_right_one(banking: Policy) -> None:
    def asked(number: int, scope: bool = True) -> tuple[Record, Verdict]:
        return Record(question=f"question {number}?", answer=f"said {number}", id=f"r{number}"), verdict(scope)

    rows = [asked(0), asked(1), asked(2), asked(3, scope=False)]
    labelled = [Question(question="question 0?", in_scope=True, reference="Reference.")]
    before = built(banking, *rows, labelled=labelled, taught={"question 1": "Taught."})
    own = {f"question {i}": [WrongAnswer(answer=f"said {i}", origin="own_answer", record_id=f"r{i}")] for i in range(4)}
    own["question 1"].append(WrongAnswer(answer="Made wrong.", origin="synthetic"))
    # Of what the model said to that one, only the judge says that it is right.
    own["question 2"].append(WrongAnswer(answer="Made wrong.", origin="synthetic"))
    own["question 0"].append(WrongAnswer(answer=" SAID 0!", origin="synthetic"))  # the same again
    own["question 0"].append(WrongAnswer(answer="reference", origin="synthetic"))  # the right one
    after = built(banking, *rows, labelled=labelled, taught={"question 1": "Taught."}, wrong=own)
    more = [pair for pair in after if "_over_" in pair.source]
    assert sorted((pair.source, pair.chosen, pair.rejected, pair.record_id) for pair in more) == [
        ("reference_over_own_answer", "Reference.", "said 0", "r0"),
        ("teacher_over_own_answer", "Taught.", "said 1", "r1"),
        ("teacher_over_synthetic", "Taught.", "Made wrong.", ""),
    ]
    assert len(before) == 2 and len(after) == 5  # the scopes are balanced as before
    assert preferences_hash(built(banking, *rows, labelled=labelled)) == preferences_hash(
        built(banking, *rows, labelled=labelled, wrong={})
    )
