"""An evaluation's summary, which `python run.py evaluate --out` writes."""

from __future__ import annotations

import json

import pytest
from evaluations import judged, unjudged

from ontopic.data.labelled import Question
from ontopic.errors import UserError
from ontopic.evaluation.answers import Evaluation
from ontopic.statistics.scores import score


def test_the_summary_has_all_scores_those_of_each_kind_and_every_answer() -> None:
    given = judged(6, 2)
    verdicts = [*given.verdicts[:5], unjudged(1)[0]]
    questions = [
        Question(question=record.question, in_scope=bool(record.in_scope), kind="sums" if i < 2 else "")
        for i, record in enumerate(given.records)
    ]
    evaluation = Evaluation(questions=questions, records=given.records, verdicts=verdicts)
    written = json.loads(json.dumps(evaluation.summary().model_dump(mode="json"), allow_nan=False))
    assert list(written) == ["guardrail_score", "over_refusal", "leak", "unjudged", "kinds", "answers"]
    assert {name: written[name] for name in list(written)[:4]} == score(verdicts).model_dump(mode="json")
    assert written["kinds"] == {"sums": score(verdicts[:2]).model_dump(mode="json")}
    assert written["answers"][0] == {
        "question": "Question 0?",
        "messages": [],
        "kind": "sums",
        "in_scope": True,
        "answer": "Answer of m-1 to 0.",
        "verdict": "fail",
        "score": 0.1,
        "explanation": "Because.",
    }
    last = written["answers"][-1]
    assert (last["verdict"], last["score"], last["explanation"]) == ("unjudged", None, "timeout")
    assert evaluation.model_version == "m-1"


def test_an_evaluation_of_which_nothing_was_judged_is_an_error() -> None:
    given = judged(6, 2)
    questions = [Question(question=record.question, in_scope=True) for record in given.records]
    some = Evaluation(questions=questions, records=given.records, verdicts=[*given.verdicts[:1], *unjudged(5)])
    some.summary().check_any_judged()
    none = Evaluation(questions=questions, records=given.records, verdicts=unjudged(6))
    with pytest.raises(UserError, match="judged none of the 6 answers: timeout; see to it and run again"):
        none.summary().check_any_judged()
