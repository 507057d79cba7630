"""Judged records as a table."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from evaluations import judged, unjudged

from ontopic.records import Record
from ontopic.reports.frames import verdict_frame, verdicts_of


def test_frame_has_a_row_a_record_and_keeps_what_is_unknown():
    given = judged(2, 1)
    records, verdicts = given.records, given.verdicts
    frame = verdict_frame(
        [*records, Record(question="q", answer="a", asked_at=datetime(2025, 3, 1, tzinfo=UTC))],
        [*verdicts, *unjudged(1)],
    )
    assert ", ".join(frame.columns) == (
        "question, asked, answer, model_version, asked_at, latency_s, completion_tokens, "
        "verdict, score, in_scope, declined, explanation, cause, judge_id"
    )
    assert frame["verdict"].tolist() == ["fail", "pass", "unjudged"]
    assert frame["declined"].isna().tolist() == [False, False, True]
    assert frame["score"].isna().tolist() == [False, False, True]
    assert frame["asked_at"].isna().tolist() == [True, True, False]
    with pytest.raises(ValueError, match="2 records, 1 verdicts"):
        verdict_frame(records, verdicts[:1])

    assert verdicts_of(frame) == [*verdicts, *unjudged(1)]
