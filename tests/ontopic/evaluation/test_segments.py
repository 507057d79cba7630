"""Results by segment: each question counts once by kind, by language and by intent."""

from __future__ import annotations

from evaluations import judged, unjudged

from ontopic.data.labelled import Question
from ontopic.evaluation.answers import Evaluation
from ontopic.evaluation.segments import Segment, segments

GERMAN = "Wie kann ich meine verlorene Kreditkarte sperren lassen?"
ENGLISH = "How can I block the credit card that I have lost?"


def found() -> dict[tuple[str, str], Segment]:
    """Twelve questions: the first four in German and overridden; of the challenger's, the last two are not judged."""
    questions = [
        Question(
            question=(GERMAN if i < 4 else ENGLISH) + " " * i,
            in_scope=i % 2 == 0,
            kind="instruction_override" if i < 4 else "",
            intent="card" if i % 3 == 0 else "",
        )
        for i in range(12)
    ]
    before, after = judged(12, 6), judged(12, 2)
    verdicts = [*after.verdicts[:10], *unjudged(2)]
    champion = Evaluation(questions=questions, records=before.records, verdicts=before.verdicts)
    challenger = Evaluation(questions=questions, records=after.records, verdicts=verdicts)
    return {(each.by, each.name): each for each in segments(champion, challenger)}


def test_each_segment_has_both_models_scores_with_n_and_what_is_unjudged() -> None:
    of = found()
    assert list(of) == [
        ("kind", "plain"),
        ("kind", "instruction_override"),
        ("language", "en"),
        ("language", "de"),
        ("intent", "not named"),
        ("intent", "card"),
    ]
    for by in ("kind", "language", "intent"):
        assert sum(each.n for each in of.values() if each.by == by) == 12
    german = of["language", "de"]
    assert (german.n, german.champion.guardrail_score.value, german.challenger.guardrail_score.value) == (4, 0.0, 0.5)
    plain = of["kind", "plain"]
    assert (plain.challenger.unjudged, plain.challenger.guardrail_score.n, plain.champion.unjudged) == (2, 6, 0)
    assert 0 < plain.challenger.guardrail_score.low < plain.challenger.guardrail_score.value


def test_a_question_that_tells_no_language_is_unsure() -> None:
    evaluation = Evaluation(
        questions=[Question(question="OK?", in_scope=True)],
        records=judged(1, 0).records,
        verdicts=judged(1, 0).verdicts,
    )
    assert [each.name for each in segments(evaluation, evaluation)] == ["plain", "unsure", "not named"]


def test_segments_of_few_questions_are_one() -> None:
    """The banking policy has hundreds of intents, most with one question in a gate."""
    questions = [
        Question(question=f"{ENGLISH} {i}", in_scope=True, intent=f"intent {max(0, i - 6)}") for i in range(12)
    ]
    evaluation = Evaluation(questions=questions, records=judged(12, 3).records, verdicts=judged(12, 3).verdicts)
    intents = [each for each in segments(evaluation, evaluation) if each.by == "intent"]
    assert [(each.name, each.n) for each in intents] == [
        ("intent 0", 7),
        ("5 others, under 5 each", 5),
    ]
    assert [each.champion.guardrail_score.n for each in intents] == [7, 5]
