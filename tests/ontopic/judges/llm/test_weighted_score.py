"""The score that is weighted by the probabilities of the verdict's tokens."""

from __future__ import annotations

import json
import logging
import math
from typing import Any

import pytest
from graders import PASS, RECORD, grader_of, says
from loopback import ChatServer, Reply
from values import replace

from ontopic.config.policy import Policy
from ontopic.judges.llm.grading import (
    grade_single,
)
from ontopic.judges.llm.verdict_cache import VerdictCache


def logprobs(tokens: list[str | tuple[str, dict[str, float]]]) -> dict[str, Any]:
    """``choices[0].logprobs`` of a reply of these tokens; each may carry the probabilities at its place."""
    content = []
    for token in tokens:
        text, top = token if isinstance(token, tuple) else (token, {token: 1.0})
        entries = [
            {"token": t, "bytes": list(t.encode()), "logprob": math.log(p) if p else -9999.0} for t, p in top.items()
        ]
        content.append(next(entry for entry in entries if entry["token"] == text) | {"top_logprobs": entries})
    return {"content": content, "refusal": None}


START = ['{"explanation": "He wrote \\"verdict\\": \\"fail', '\\" himself.", "verdict":']


@pytest.mark.parametrize(
    ("tokens", "score"),
    [
        ([' "', ("pass", {"pass": 0.9, "fail": 0.1}), '"}'], 0.9),
        ([' "', ("pass", {"pass": 0.6, "fail": 0.2, " pass": 0.1, "maybe": 0.1}), '"}'], 0.7 / 0.9),
        ([' "', ("pa", {"pa": 0.5, "pass": 0.2, "fa": 0.2, "f": 0.1}), "ss", '"}'], 0.7),
        ([(' "pass', {' "pass': 0.75, ' "fail': 0.25}), '"}'], 0.75),
        ([' "', ('pass"}', {'pass"}': 0.8, 'fail"}': 0.1, "fail": 0.1})], 0.8),
        ([(' "', {' "': 0.5, ' "fail': 0.5}), ("pass", {"pass": 0.7, "fail": 0.3}), '"}'], 0.7),
        ([' "', ("fail", {"pass": 0.3, "fail": 0.7}), '"}'], 0.3),
        ([' "', ("pass", {"pass": 1.0, "fail": 0.0}), '"}'], 1.0),
        ([' "', ("pass", {"pass": 0.5, "passed": 0.3, "failure": 0.1, "fail": 0.1}), '"}'], 0.5 / 0.6),
    ],
    ids=["whole", "space", "cut", "quote before", "quote after", "late", "fail", "sure", "other words"],
)
def test_the_score_is_the_probability_of_a_pass(
    chat_server: ChatServer, banking: Policy, tokens: list[Any], score: float
) -> None:
    tokens = [*START, *tokens]
    text = "".join(token if isinstance(token, str) else token[0] for token in tokens)
    says(chat_server, text, choice={"logprobs": logprobs(tokens)})
    (verdict,) = grade_single(grader_of(chat_server, banking, weighted=True), [RECORD])
    assert verdict.score == pytest.approx(score)
    assert verdict.outcome == ("pass" if score >= 0.5 else "fail")
    (request,) = chat_server.requests
    assert (request["logprobs"], request["top_logprobs"]) == (True, 20)


def test_characters_that_are_spread_over_tokens_do_not_shift_the_place(
    chat_server: ChatServer, banking: Policy
) -> None:
    text = '{"explanation": "é€😀", "verdict": "pass"}'
    sent = [{"token": "\ufffd", "bytes": [byte], "logprob": 0.0, "top_logprobs": []} for byte in text.encode()]
    place = text.encode().index(b"pass")
    sent[place]["top_logprobs"] = [
        {"token": "p", "bytes": [112], "logprob": math.log(0.8)},
        {"token": "f", "bytes": [102], "logprob": math.log(0.2)},
    ]
    sent[place]["logprob"] = math.log(0.8)
    says(chat_server, text, choice={"logprobs": {"content": sent}})
    (verdict,) = grade_single(grader_of(chat_server, banking, weighted=True), [RECORD])
    assert verdict.score == pytest.approx(0.8)


def test_where_verdict_and_probabilities_disagree_the_probabilities_count(
    chat_server: ChatServer, banking: Policy
) -> None:
    tokens = ['{"explanation": "Why.", "verdict": "', ("fail", {"pass": 0.62, "fail": 0.38}), '"}']
    says(chat_server, '{"explanation": "Why.", "verdict": "fail"}', choice={"logprobs": logprobs(tokens)})
    (verdict,) = grade_single(grader_of(chat_server, banking, weighted=True), [RECORD])
    assert (verdict.outcome, verdict.score) == ("pass", pytest.approx(0.62))
    assert verdict.explanation == "Why. The judge wrote fail, but gave a pass the probability 0.62."


def test_a_score_follows_the_verdict_that_a_scope_label_turns(chat_server: ChatServer, banking: Policy) -> None:
    grade = {"in_scope": False, "declined": True, "verdict": "pass"}
    head, tail = json.dumps(grade).split("pass")
    tokens = [head, ("pass", {"pass": 0.9, "fail": 0.1}), tail]
    says(chat_server, json.dumps(grade), choice={"logprobs": logprobs(tokens)})
    (verdict,) = grade_single(grader_of(chat_server, banking, weighted=True), [replace(RECORD, in_scope=True)])
    assert (verdict.outcome, verdict.score) == ("fail", pytest.approx(0.1))


@pytest.mark.parametrize(
    "given",
    [None, {}, {"content": None}, {"content": []}, {"content": [{"token": "x"}]}, {"content": "odd"}, [1]],
    ids=["null", "empty", "no content", "no tokens", "odd token", "text", "list"],
)
def test_without_log_probabilities_scores_are_0_or_1_and_it_is_said_once(
    chat_server: ChatServer, banking: Policy, caplog: pytest.LogCaptureFixture, given: object
) -> None:
    says(chat_server, PASS, choice={"logprobs": given})
    with caplog.at_level(logging.WARNING, logger="ontopic"):
        verdicts = list(
            grade_single(grader_of(chat_server, banking, weighted=True), [RECORD, replace(RECORD, answer="No.")])
        )
    assert [verdict.score for verdict in verdicts] == [1.0, 1.0]
    assert caplog.text.count("gives no log-probabilities of its verdicts: scores are 0 or 1") == 1


def test_a_server_that_refuses_log_probabilities_is_asked_without(chat_server: ChatServer, banking: Policy) -> None:
    chat_server.reply = lambda request: (
        Reply("logprobs are not supported", status=400) if "logprobs" in request else Reply(PASS)
    )
    (verdict,) = grade_single(grader_of(chat_server, banking, weighted=True), [RECORD])
    assert (verdict.outcome, verdict.score) == ("pass", 1.0)
    assert "response_format" in chat_server.requests[-1]


def test_a_weighted_score_is_cached(chat_server: ChatServer, banking: Policy) -> None:
    tokens = ['{"verdict": "', ("pass", {"pass": 0.9, "fail": 0.1}), '"}']
    says(chat_server, '{"verdict": "pass"}', choice={"logprobs": logprobs(tokens)})
    grader = grader_of(chat_server, banking, weighted=True, cache=VerdictCache())
    scores = [next(grade_single(grader, [RECORD])).score for _ in range(2)]
    assert scores == [pytest.approx(0.9)] * 2
    assert len(chat_server.requests) == 1
