"""Preference pairs: what is chosen over what, and the same pairs for the same traffic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from chats import LAST, bank_chat, cake_chat
from values import replace

from ontopic.config.policy import Policy, load_policy
from ontopic.data.labelled import Question
from ontopic.data.same_question import identity, normalized
from ontopic.records import Judged, Message, Outcome, Record, Verdict
from ontopic.training.preferences import (
    PairSettings,
    Preference,
    WrittenAnswers,
    build_preferences,
    preferences_hash,
    unwritten,
)

POLICY = load_policy(Path(__file__).resolve().parents[3] / "configs" / "policies" / "banking.yaml")
REFUSAL = POLICY.refusal
One = tuple[Record, Verdict]


def judged(
    question: str,
    answer: str,
    in_scope: bool | None,
    outcome: Outcome = "pass",
    declined: bool | None = False,
    finished: bool = True,
) -> One:
    record = Record(question=question, answer=answer, id=f"id of {question}", finished=finished)
    return record, Verdict(
        outcome=outcome, score=None, explanation="", judge_id="judge", in_scope=in_scope, declined=declined
    )


def outside(number: int = 0) -> One:
    return judged(f"What is the capital of country {number}?", f"It is city {number}.", False, "fail")


def inside(number: int = 0) -> One:
    return judged(f"How do I open account {number}?", f"Open account {number} in the app.", True)


def traffic_of(rows: Sequence[One]) -> Judged:
    return Judged(records=[record for record, _ in rows], verdicts=[verdict for _, verdict in rows])


def pairs(
    traffic: Sequence[One],
    labelled: list[Question] | None = None,
    taught: dict[str, str] | None = None,
    own: dict[str, str] | None = None,
    settings: PairSettings | None = None,
    policy: Policy | None = None,
) -> list[Preference]:
    return build_preferences(
        traffic_of(traffic),
        labelled=labelled or [],
        policy=policy or POLICY,
        settings=settings or PairSettings(),
        written=WrittenAnswers(taught=taught or {}, own=own or {}),
    )


def only(scope: bool, found: list[Preference]) -> Preference:
    (pair,) = [pair for pair in found if pair.in_scope is scope]
    return pair


def test_in_scope_an_answer_is_chosen_over_the_refusal() -> None:
    pair = only(True, pairs([inside(), outside()]))
    assert (pair.chosen, pair.rejected, pair.source) == ("Open account 0 in the app.", REFUSAL, "model")
    assert pair.record_id == "id of How do I open account 0?"


def test_out_of_scope_the_refusal_is_chosen_over_what_was_said() -> None:
    pair = only(False, pairs([inside(), outside()]))
    assert (pair.chosen, pair.rejected, pair.source) == (REFUSAL, "It is city 0.", "refusal")


def test_the_teacher_goes_before_the_reference_and_the_reference_before_the_own_answer() -> None:
    question = inside()[0].question
    labelled = [Question(question=question.upper(), in_scope=True, reference="Written.")]
    taught = {normalized(question): "Taught."}
    assert [only(True, pairs([inside(), outside()], *given)).chosen for given in ((labelled, taught), (labelled,))] == [
        "Taught.",
        "Written.",
    ]
    assert only(True, pairs([inside(), outside()], [], taught)).source == "teacher"
    assert only(True, pairs([inside(), outside()], labelled)).source == "reference"


@pytest.mark.parametrize(
    ("outcome", "declined", "finished", "used"),
    [
        ("pass", False, True, True),
        ("pass", None, True, True),
        ("pass", False, False, False),
        ("fail", False, True, False),
        ("unjudged", None, True, False),
    ],
)
def test_an_own_answer_is_chosen_only_where_it_passed_and_was_finished(
    outcome: Outcome, declined: bool | None, finished: bool, used: bool
) -> None:
    found = pairs([judged("How do I pay?", "In the app.", True, outcome, declined, finished), outside()])
    assert any(pair.source == "model" for pair in found) is used


def test_an_own_answer_that_declines_a_question_labelled_in_scope_is_not_chosen() -> None:
    # the judge took the question for one out of scope, and so passed the answer that declines it
    traffic = [judged("How do I pay?", "That is not my subject.", False, "pass", declined=True)]
    assert pairs(traffic, [Question(question="how do i pay", in_scope=True)]) == []


def test_the_label_of_a_question_goes_before_the_judges_opinion() -> None:
    labelled = [Question(question="How do I open account 0?", in_scope=False)]
    found = pairs([inside(0), inside(1)], labelled)
    assert only(False, found).question == "How do I open account 0?"
    assert only(True, found).question == "How do I open account 1?"


def test_a_question_of_unknown_scope_gives_no_pair() -> None:
    assert pairs([judged("Eh?", "What?", None, "unjudged", None)]) == []


def test_an_answer_that_is_the_refusal_or_empty_is_never_rejected_for_it() -> None:
    said = [judged("Why is the sky blue?", REFUSAL.upper(), False, declined=True), judged("Who won?", " ", False)]
    assert pairs(said) == []


def test_questions_that_differ_in_case_punctuation_or_spaces_count_once() -> None:
    traffic = [inside(0), judged("how do I open  account 0", "Another answer.", True), outside(0), outside(1)]
    found = pairs(traffic)
    assert len(found) == 2
    assert only(True, found).chosen == "Open account 0 in the app."
    assert normalized(" What's THIS?! ") == normalized("what s this")


def test_a_repeated_question_is_taken_from_the_first_record_that_gives_a_pair() -> None:
    failed = judged("How do I open account 0?", "Ducks.", True, "fail")
    assert only(True, pairs([failed, inside(0), outside()])).chosen == "Open account 0 in the app."


@pytest.mark.parametrize(("n_inside", "n_outside"), [(7, 3), (3, 7), (4, 4)])
def test_the_two_scopes_are_balanced(n_inside: int, n_outside: int) -> None:
    found = pairs([*map(inside, range(n_inside)), *map(outside, range(n_outside))])
    scopes = [pair.in_scope for pair in found]
    assert scopes.count(True) == scopes.count(False) == min(n_inside, n_outside)


@pytest.mark.parametrize(("n_inside", "n_outside"), [(5, 0), (0, 5)])
def test_all_pairs_are_kept_where_one_scope_has_none(n_inside: int, n_outside: int) -> None:
    assert len(pairs([*map(inside, range(n_inside)), *map(outside, range(n_outside))])) == 5


def test_the_same_input_gives_the_same_pairs_in_the_same_order() -> None:
    traffic = [*map(inside, range(30)), *map(outside, range(20))]
    first, second, other = pairs(traffic), pairs(traffic), pairs(traffic, settings=PairSettings(seed=1))
    assert first == second
    assert preferences_hash(first) == preferences_hash(second)
    assert first != other
    assert preferences_hash(first) != preferences_hash(other)
    assert [pair.in_scope for pair in first] != sorted(pair.in_scope for pair in first)


def test_the_hash_is_of_the_content_and_its_order_and_not_of_the_record_ids() -> None:
    found = pairs([inside(0), inside(1), outside(0), outside(1)])
    digest = preferences_hash(found)
    assert preferences_hash([replace(pair, record_id="x") for pair in found]) == digest
    assert preferences_hash(found[::-1]) != digest
    for change in ({"chosen": "x"}, {"rejected": "x"}, {"question": "x"}, {"source": "x"}):
        assert preferences_hash([replace(found[0], **change), *found[1:]]) != digest


def test_the_hash_is_the_same_in_every_process() -> None:
    pair = Preference(question="q é", chosen="c", rejected="r", in_scope=True, source="model", record_id="1")
    assert preferences_hash([pair]) == "c0c82a9ac16f0a151b8df7adc8c985baaf84f981cc9bbdce83ebb7eb2ff08799"


def test_each_pair_has_the_conversation_of_its_own_record_whatever_else_ends_in_the_same_words() -> None:
    bank, cake = bank_chat(id="bank"), cake_chat(id="cake")
    verdicts = [inside()[1], outside()[1]]
    label = Question.asked_in(cake, in_scope=True, reference="Of the cake.")
    alone = Question(question=LAST.upper(), in_scope=True, reference="Of anything.")
    for labelled in ([], [alone]):
        found = {pair.record_id: pair for pair in pairs(list(zip([bank, cake], verdicts, strict=True)), labelled)}
        assert found["bank"].messages == bank.request
        assert (found["bank"].chosen, found["bank"].in_scope) == (bank.answer, True)
        assert found["cake"].messages == cake.request
        assert (found["cake"].chosen, found["cake"].in_scope) == (REFUSAL, False)
    found = {pair.record_id: pair for pair in pairs(list(zip([bank, cake], verdicts, strict=True)), [label])}
    assert (found["bank"].chosen, found["cake"].chosen) == (bank.answer, "Of the cake.")


def test_answers_of_teacher_and_model_are_those_to_the_whole_conversation() -> None:
    bank, cake = bank_chat(id="bank"), cake_chat(id="cake")
    traffic = [(bank, inside()[1]), (cake, inside()[1])]
    for source in ("taught", "own"):
        answers = {identity(bank.request): "Of the bank.", identity(cake.request): "Of the cake."}
        found = {pair.record_id: pair.chosen for pair in pairs(traffic, **{source: answers})}
        assert found == {"bank": "Of the bank.", "cake": "Of the cake."}
    taught = {identity(bank.request): "Of the bank."}
    assert [record.id for record in unwritten(traffic_of(traffic), labelled=[], taught=taught)] == ["cake"]


def test_what_stands_between_question_and_answer_is_kept_in_its_place() -> None:
    found = Message(role="tool", content="Balance: 5 euros.")
    record = bank_chat().model_copy(update={"messages": (*bank_chat().messages, found)})
    (pair,) = pairs([(record, inside()[1])])
    assert pair.messages == record.request
    assert preferences_hash([pair]) != preferences_hash([replace(pair, after=())])
    label = Question.asked_in(record, in_scope=True, reference="Five.")
    covering = pairs([outside()], [label], settings=PairSettings(cover=2))
    assert [pair.messages for pair in covering if pair.in_scope] == [record.request]


def test_a_record_without_a_label_counts_only_where_the_judge_is_sure_enough_of_its_scope() -> None:
    def found(scope_score: float | None, certainty: float, labelled: list[Question]) -> int:
        record, verdict = outside()
        judged = [(record, replace(verdict, scope_score=scope_score))]
        return len(pairs(judged, labelled, settings=PairSettings(least_certainty=certainty)))

    assert [found(score, 0.5, []) for score in (0.01, 0.25, 0.26, 0.49, None)] == [1, 1, 0, 0, 1]
    assert found(0.49, 0.0, []) == 1
    assert found(0.49, 0.5, [Question(question=outside()[0].question, in_scope=False)]) == 1


def test_how_sure_the_judge_is_of_a_pass_says_nothing_of_the_scope() -> None:
    settings = PairSettings(least_certainty=0.5)
    record, verdict = outside()
    # A leak whose score is in the middle, as the judge is torn on the answer, and is sure of the scope.
    (pair,) = pairs([(record, replace(verdict, score=0.45, scope_score=0.02))], settings=settings)
    assert (pair.in_scope, pair.rejected) == (False, record.answer)
    # One that fails for certain, in scope or out of it, of which the judge cannot say which.
    assert pairs([(record, replace(verdict, score=0.001, scope_score=0.45))], settings=settings) == []
    record, verdict = inside()
    assert pairs([(record, replace(verdict, score=0.999, scope_score=0.55))], settings=settings) == []
    failed = replace(verdict, outcome="fail", score=0.001, scope_score=0.98)
    (pair,) = pairs([(record, failed)], own={normalized(record.question): "Open it in the app."}, settings=settings)
    assert (pair.in_scope, pair.chosen) == (True, "Open it in the app.")
    unsure = replace(failed, scope_score=0.55)
    assert unwritten(traffic_of([(record, unsure)]), labelled=[], taught={}, least_certainty=0.5) == []


def test_a_verdict_of_before_there_was_a_scope_score_can_be_read() -> None:
    old = (
        '{"outcome": "fail", "score": 0.2, "explanation": "", "judge_id": "judge", "in_scope": false, '
        '"declined": false, "cause": null}'
    )
    verdict = Verdict.model_validate_json(old)
    assert verdict.scope_score is None
    assert len(pairs([(outside()[0], verdict)], settings=PairSettings(least_certainty=1.0))) == 1


def test_other_labelled_questions_cover_the_intents_with_the_beginnings_of_answers() -> None:
    labelled = [
        Question(question=f"{intent} {i}?", in_scope=inside, intent=intent, reference="So." if inside else None)
        for intent, inside, n in (("pin", True, 40), ("loan", True, 5), ("joke", False, 40), ("poem", False, 5))
        for i in range(n)
    ]
    traffic = [inside(), outside(0)]
    settings = PairSettings(in_scope_share=0.4, cover=20)
    found = pairs(traffic, labelled, settings=settings)
    cover = [pair for pair in found if not pair.record_id]
    assert (len(found), len(cover)) == (22, 20)
    assert sum(pair.beginnings for pair in cover if pair.in_scope) == 6
    assert all(pair.beginnings for pair in cover if not pair.in_scope)
    counts = Counter(_asked(pair, labelled).intent for pair in cover)
    assert counts == {"pin": 4, "loan": 4, "joke": 7, "poem": 5}  # of 22 pairs 9 in scope, of which traffic gives one
    assert {(p.chosen, p.rejected) for p in cover} == {("So.", REFUSAL), (REFUSAL, outside(0)[0].answer)}
    assert found == pairs(traffic, labelled, settings=settings)
    # Where the model leaks nothing there is nothing to reject, and only answers in scope are covered.
    found = pairs(traffic[:1], labelled, settings=settings)
    assert len(found) == 8 and all(pair.in_scope for pair in found)


def _asked(pair: Preference, labelled: list[Question]) -> Question:
    """Which of the labelled questions, of its scope, the pair is about."""
    (found,) = [q for q in labelled if q.in_scope is pair.in_scope and q.question in pair.question]
    return found


def test_some_covered_questions_follow_or_stand_beside_another_one() -> None:
    labelled = [Question(question=f"Pin {i}?", in_scope=True, intent="pin", reference=f"So {i}.") for i in range(100)]
    labelled += [Question(question=f"Joke {i}?", in_scope=False, intent="joke") for i in range(100)]
    labelled += [Question(question="Role?", in_scope=True, kind="role_play", intent="role", reference="So.")]
    found = pairs([outside()], labelled, settings=PairSettings(cover=120))
    cover = [pair for pair in found if not pair.record_id]
    after = [pair for pair in cover if pair.history]
    assert len(after) in (19, 20) and {pair.in_scope for pair in after} == {True, False}
    for pair in after:
        asked, answer = pair.history
        assert (asked["role"], answer["role"]) == ("user", "assistant")
        number = asked["content"].removeprefix("Pin ").rstrip("?")
        assert answer["content"] == (f"So {number}." if asked["content"].startswith("Pin") else REFUSAL)
    assert {(pair.in_scope, pair.history[1]["content"] == REFUSAL) for pair in after} == {
        (inside, refused) for inside in (True, False) for refused in (True, False)
    }
    beside = [pair for pair in cover if "Pin" in pair.question and "Joke" in pair.question]
    assert len(beside) in (9, 10) and all(pair.in_scope and not pair.history for pair in beside)
    assert all(pair.beginnings for pair in (*after, *beside))
    # What is a conversation of a kind already stays as it was written.
    assert [pair.question for pair in cover if "Role" in pair.question] == ["Role?"]


def test_where_nobody_wrote_an_answer_the_models_best_one_is_chosen() -> None:
    written, labelled_only, taught, asked = (inside(number) for number in range(4))
    failed = judged("How do I close account 9?", "Bananas.", True, "fail")
    traffic = [written, labelled_only, taught, asked, asked, failed, outside()]
    labelled = [
        Question(question=written[0].question, in_scope=True, intent="a", split="train", reference="Written."),
        Question(question=labelled_only[0].question, in_scope=True, intent="a", split="train"),
    ]
    teachers = {normalized(taught[0].question): "Taught."}
    found = unwritten(traffic_of(traffic), labelled=labelled, taught=teachers)
    assert found == [labelled_only[0], asked[0], failed[0]]
    unsure = [(record, replace(verdict, scope_score=0.5)) for record, verdict in traffic]
    assert unwritten(traffic_of(unsure), labelled=labelled, taught=teachers, least_certainty=0.1) == [labelled_only[0]]

    best = {failed[0].question: "Close it in the app.", asked[0].question: "Open it in the app, under Accounts."}
    own = {normalized(question): answer for question, answer in best.items()}
    found_pairs = pairs(traffic, labelled, teachers, own, PairSettings(in_scope_share=0.9))
    built = {pair.question: pair for pair in found_pairs}
    for question, answer in best.items():
        assert (built[question].chosen, built[question].source) == (answer, "model")
    assert built[labelled_only[0].question].chosen == labelled_only[0].answer


def test_what_is_declined_is_declined_in_the_language_of_the_question() -> None:
    recipe, card = (
        "Wie lange muss ein Hefeteig an einem warmen Ort gehen?",
        "Wie sperre ich meine verlorene Kreditkarte?",
    )
    traffic = [judged(recipe, "Eine Stunde.", False, "fail"), judged(card, "In der App.", True), outside(), inside()]
    found = {pair.question: pair for pair in pairs(traffic)}
    german = POLICY.refusals["de"]
    assert (found[recipe].chosen, found[card].rejected) == (german, german)
    assert only(False, [p for p in found.values() if p.question != recipe]).chosen == REFUSAL
    without = replace(POLICY, refusals={})
    assert {p.chosen for p in pairs(traffic, policy=without) if not p.in_scope} == {REFUSAL}


def test_cover_declines_in_the_language_of_the_question() -> None:
    known = [
        Question(question="Welches Moos wächst am besten zwischen Gehwegplatten?", in_scope=False, intent="moss"),
        Question(question="Wo steht in der App meine IBAN?", in_scope=True, intent="iban", reference="Unter Konto."),
    ]
    found = pairs([outside(), inside()], labelled=known, settings=PairSettings(cover=2))
    cover = {pair.in_scope: pair for pair in found if not pair.record_id}
    assert (cover[False].chosen, cover[True].rejected) == (POLICY.refusals["de"],) * 2
