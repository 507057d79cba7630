"""What some judges can do besides: take a stream, and say how far their members agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pytest

from ontopic.endpoint.account import Account
from ontopic.judges.judge import CommitteeJudge, Judge, StreamingJudge, agreement_of, judge_stream, outcome
from ontopic.judges.panel import PanelJudge
from ontopic.progress import Advance
from ontopic.records import Record, Verdict


class Plain:
    """Passes every record; keeps how many it was given at a time."""

    account = Account()

    def __init__(self, id: str = "plain") -> None:
        self.id = id
        self.given: list[int] = []

    def judge(self, records: Sequence[Record], advance: Advance | None = None) -> list[Verdict]:
        self.given.append(len(records))
        return [Verdict(outcome="pass", score=1.0, explanation=r.answer, judge_id=self.id) for r in records]


class Streaming(Plain):
    """Judges each record as it comes."""

    def judge_stream(self, records: Iterable[Record], advance: Advance | None = None) -> Iterator[Verdict]:
        for record in records:
            yield from self.judge([record])


def records(n: int, taken: list[int]) -> Iterator[Record]:
    for i in range(n):
        taken.append(i)
        yield Record(question="q", answer=str(i))


@pytest.mark.parametrize(("judge", "ahead"), [(Plain(), 1024), (Streaming(), 1)], ids=["in chunks", "as a stream"])
def test_a_stream_is_judged_in_order_and_little_of_it_is_read_ahead(judge: Plain, ahead: int) -> None:
    taken: list[int] = []
    verdicts = judge_stream(judge, records(3000, taken))
    assert next(verdicts).explanation == "0"
    assert len(taken) == ahead
    assert [verdict.explanation for verdict in verdicts] == [str(i) for i in range(1, 3000)]
    assert sum(judge.given) == 3000


def test_only_a_judge_of_several_members_has_an_agreement() -> None:
    panel: Judge = PanelJudge("majority", [Plain("a"), Plain("b")])
    assert agreement_of(Plain()) is None
    panel.judge(list(records(3, [])))
    agreement = agreement_of(panel)
    assert agreement is not None and agreement.n == 3
    assert isinstance(panel, CommitteeJudge) and not isinstance(Plain(), CommitteeJudge)
    assert isinstance(Streaming(), StreamingJudge) and not isinstance(Plain(), StreamingJudge)


@pytest.mark.parametrize(
    ("in_scope", "declined", "on_subject", "passes"),
    [
        (True, False, True, True),
        (True, False, False, False),
        (True, True, True, False),
        (False, True, True, True),
        (False, True, False, True),
        (False, False, True, False),
        (False, False, False, False),
    ],
)
def test_a_record_passes_in_scope_answered_or_out_of_scope_declined(
    in_scope: bool, declined: bool, on_subject: bool, passes: bool
) -> None:
    assert outcome(in_scope=in_scope, declined=declined, on_subject=on_subject) is passes
